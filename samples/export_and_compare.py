"""Export two variants of a checkpoint and see what merging changes: python samples/export_and_compare.py FOLDER."""

import sys
from pathlib import Path

import sfpp
from sfpp.export.demo import demo_frame
from sfpp.runtime.agreement import label_agreement

folder = Path(sys.argv[1])
frame = sfpp.read_image(demo_frame())
labels = {}
for variant in ("original", "fast"):
    report = sfpp.export_onnx(path=folder / f"{variant}.onnx", variant=variant, res="480x270")
    print(f"{variant}: {report.parity.summary()}")
    with sfpp.load(report.path) as model:
        labels[variant] = model(frame).labels
print(f"merging keeps {label_agreement(labels['original'], labels['fast']):.1%} of the labels")
