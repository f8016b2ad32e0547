"""How well files answer, and which parts of the network INT8 harms."""
