"""Frames to calibrate with and to judge by, and what is known about them."""
