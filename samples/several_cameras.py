"""Several cameras share one model, in turn: python samples/several_cameras.py MODEL.onnx rtsp://a rtsp://b ..."""

import sys

import numpy as np

import sfpp


def tell(event: sfpp.Event) -> None:
    """Say when a camera is lost or back."""
    if event.kind in ("lost", "back", "gave-up"):
        print(event.line())


model_path, *sources = sys.argv[1:]
with sfpp.load_segmenter(model_path) as model, sfpp.Pipeline(model, sources, on_event=tell) as pipeline:
    for answer in pipeline:
        ahead = answer.result.labels[-answer.result.labels.shape[0] // 3 :]
        most = np.bincount(ahead.ravel()).argmax()  # the class that fills most of the lowest third
        share = (ahead == most).mean()
        print(
            f"{answer.frame.source:12} ahead: {share:4.0%} {model.contract.classes[most]}, {answer.age_ms:.0f} ms old"
        )
