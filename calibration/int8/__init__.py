"""INT8 in the graph: which products, which ranges, and the graph itself."""
