"""Segment one picture: python samples/segment_image.py MODEL.onnx photo.jpg overlay.png."""

import sys

import sfpp

model_path, image_path, overlay_path = sys.argv[1:]
with sfpp.load(model_path) as model:
    frame = sfpp.read_image(image_path)  # (H, W, 3) uint8, BGR
    result = model(frame)

print(f"{result.labels.shape=} {result.labels.dtype=}")  # one class number a pixel, at the frame's own size
for name, share in sorted(result.shares().items(), key=lambda item: -item[1])[:5]:
    print(f"{name:12} {share:6.1%}")
sfpp.write_image(overlay_path, result.draw(frame))
