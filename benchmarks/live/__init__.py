"""What a live pipeline promises, measured: it recovers, keeps its memory, its files and its freshness."""
