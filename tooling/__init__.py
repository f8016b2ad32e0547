"""What export and calibration both need and the device never does.

Frames with their truth, metrics, tasks, ONNX graphs, reports as pages and text, and work in a process that
may be killed; never torch.
"""
