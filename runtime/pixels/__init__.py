"""What lies behind pixels: which way up a file says they are, and the colors of cameras."""
