"""ONNX to ONNX: precision with measured accuracy. So far: the frames to measure on."""
