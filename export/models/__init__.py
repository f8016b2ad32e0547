"""The learned models, one architecture a file, and token merging as pure functions."""
