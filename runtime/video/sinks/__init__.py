"""Where frames and results go: videos, pictures, lines of JSON, pipes, a window, receivers elsewhere."""
