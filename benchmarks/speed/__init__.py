"""Our graphs against PyTorch and against Transformers' SegFormer through torch.onnx."""
