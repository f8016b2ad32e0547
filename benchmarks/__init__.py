"""Scripts that measure what the README states."""
