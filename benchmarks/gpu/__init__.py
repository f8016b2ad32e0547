"""Our graphs on an NVIDIA card against PyTorch and Transformers' export; prepared here, measured without a network."""
