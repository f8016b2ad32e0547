"""Float16 in the graph: where it may be, what it costs, and the graph itself."""
