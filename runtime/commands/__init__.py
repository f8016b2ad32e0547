"""What `sfpp-run` does for each task, and what the tasks share."""
