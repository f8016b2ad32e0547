"""A line of JSON and a PNG of labels for each frame: python samples/masks_to_json.py MODEL.onnx SOURCE FOLDER."""

import sys
from pathlib import Path

import sfpp

model_path, source, folder = sys.argv[1:]
with (
    sfpp.load_segmenter(model_path) as model,
    sfpp.folder_sink(Path(folder)) as masks,
    sfpp.record_lines(Path(folder) / "frames.jsonl") as lines,
):
    for frame, result in model.stream(source, policy="every-frame"):
        masks.write(frame, result.labels)
        lines.write_record(sfpp.frame_record(frame, result))
print(f"wrote {folder}")
