"""Frames from OpenCV, answers in your own loop: python samples/own_loop.py MODEL.onnx VIDEO [CLASS]."""

import sys

import cv2

import sfpp

model_path, video_path, *wanted = sys.argv[1:]
model = sfpp.load_segmenter(model_path)
classes = model.contract.classes
name = wanted[0] if wanted else classes[0]
if name not in classes:
    sys.exit(f"the model has no class {name}; it has {', '.join(classes)}")
capture = cv2.VideoCapture(video_path)
while True:
    more, frame_bgr = capture.read()
    if not more:
        break
    labels = model(frame_bgr).labels
    ahead = labels[labels.shape[0] // 2 :, labels.shape[1] // 3 : -labels.shape[1] // 3]
    share = (ahead == classes.index(name)).mean()
    print(f"{capture.get(cv2.CAP_PROP_POS_MSEC):8.0f} ms  {name} ahead: {share:.0%}")
model.close()
