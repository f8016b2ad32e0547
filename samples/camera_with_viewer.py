"""A camera on a page: python samples/camera_with_viewer.py MODEL.onnx rtsp://... (or test://)."""

import sys

import sfpp

model_path, source, *port = sys.argv[1:]
with (
    sfpp.load_segmenter(model_path) as model,
    sfpp.Viewer(model, port=int(*port or [8080])) as viewer,
    sfpp.Pipeline(model, [source], on_event=viewer.event) as pipeline,
):
    print(f"open {viewer.url}", flush=True)
    delivery = sfpp.Delivery(viewer=viewer)
    for answer in pipeline:
        delivery.take(answer)
    print(f"{pipeline.dropped} frames were dropped to stay fresh")
