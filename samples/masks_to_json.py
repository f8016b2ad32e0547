"""A line of JSON and a PNG of labels for each frame: python samples/masks_to_json.py MODEL.onnx SOURCE FOLDER."""

import sys
from pathlib import Path

import sfpp.runtime as sfpp
from sfpp.runtime.video import folder_sink, frame_record, record_lines

model_path, source, folder = sys.argv[1:]
with (
    sfpp.load_segmenter(model_path) as model,
    folder_sink(Path(folder)) as masks,
    record_lines(Path(folder) / "frames.jsonl") as lines,
):
    for frame, result in model.stream(source, policy="every-frame"):
        masks.write(frame, result.labels)
        lines.write_record(frame_record(frame, result))
print(f"wrote {folder}")
