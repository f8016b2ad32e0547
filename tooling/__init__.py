"""What export and calibration both need and the device never does.

Frames with their truth, metrics, tasks, ONNX graphs, and reports as pages and text; never torch.
"""
