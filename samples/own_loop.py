"""Frames from OpenCV, answers in your own loop: python samples/own_loop.py MODEL.onnx VIDEO."""

import sys

import cv2

import sfpp

model_path, video_path = sys.argv[1:]
model = sfpp.load(model_path)
road = model.contract.classes.index("road")
capture = cv2.VideoCapture(video_path)
while True:
    more, frame_bgr = capture.read()
    if not more:
        break
    labels = model(frame_bgr).labels
    ahead = labels[labels.shape[0] // 2 :, labels.shape[1] // 3 : -labels.shape[1] // 3]
    print(f"{capture.get(cv2.CAP_PROP_POS_MSEC):8.0f} ms  road ahead: {(ahead == road).mean():.0%}")
model.close()
