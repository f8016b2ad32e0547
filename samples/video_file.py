"""Every frame of a video, and what was found in it: python samples/video_file.py MODEL.onnx IN.mp4 OUT.mp4."""

import sys

import sfpp

model_path, video_path, overlay_path = sys.argv[1:]
with (
    sfpp.load_segmenter(model_path) as model,
    sfpp.open_source(video_path) as source,
    sfpp.open_sink(overlay_path, frames_per_second=source.frames_per_second) as sink,
):
    for frame, result in model.stream(source):
        sink.write(frame, result.draw(frame.image_bgr))
        if frame.index % 25 == 0:
            name, share = max(result.shares().items(), key=lambda each: each[1])
            print(f"{frame.time_s:6.1f} s  most of it: {name}, {share:.0%}")
