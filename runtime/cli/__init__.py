"""`sfpp-run`, and what all commands share."""
