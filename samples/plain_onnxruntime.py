"""The same labels without sfpp on the device: python samples/plain_onnxruntime.py MODEL.onnx photo.jpg labels.png.

Each step is explained in docs/model-file.md; any language with an ONNX library can take them.
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime

model_path, image_path, labels_path = sys.argv[1:]
session = onnxruntime.InferenceSession(model_path, providers=["CPUExecutionProvider"])
contract = json.loads(session.get_modelmeta().custom_metadata_map["sfpp.contract"])
spec, output = contract["input"], contract["outputs"][0]
assert (spec["dtype"], spec["resize"], output["kind"]) == ("uint8", "letterbox", "logits"), "see the page for others"
assert (spec.get("interpolation", "area"), output.get("align_corners", False)) == ("area", False), "see the page, too"

frame = cv2.imread(image_path)  # (H, W, 3) BGR
sides, limits = frame.shape[:2], (spec["height"], spec["width"])
scale = min(limit / side for side, limit in zip(sides, limits, strict=True))
inner = [min(limit, max(1, round(side * scale))) for side, limit in zip(sides, limits, strict=True)]
top, left = ((limit - size) // 2 for size, limit in zip(inner, limits, strict=True))
shrinks = max(size / side for size, side in zip(inner, sides, strict=True)) <= 0.5
resized = cv2.resize(frame, inner[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
tensor = np.empty((1, *limits, 3), np.uint8)
tensor[:] = np.rint(spec["mean"])
tensor[0, top : top + inner[0], left : left + inner[1]] = cv2.cvtColor(resized, cv2.COLOR_BGR2RGB)
(logits,) = session.run([output["name"]], {spec["name"]: tensor})

raised = logits[0].astype(np.float32)  # (classes, h, w), raised to the frame's size along one axis, then the other
for axis, (start, size, limit, side) in enumerate(zip((top, left), inner, limits, sides, strict=True), start=1):
    cells = raised.shape[axis]
    at = (start + (np.arange(side) + 0.5) * size / side) * cells / limit - 0.5
    low, part = np.floor(at).astype(int), (at % 1).astype(np.float32)
    below, above = (raised.take(np.clip(each, 0, cells - 1), axis) for each in (low, low + 1))
    part = part[:, np.newaxis] if axis == 1 else part
    raised = below * (1 - part) + above * part
cv2.imwrite(labels_path, raised.argmax(axis=0).astype(np.uint8))
