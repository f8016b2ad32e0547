"""ONNX to ONNX: precision with measured accuracy."""
