"""The command ``sfpp-engine``: engines for TensorRT and TensorRT-RTX, and what would hinder them."""
