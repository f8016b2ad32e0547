"""Who is in front of the camera, and where the hands are: python samples/pose_stream.py POSE.onnx SOURCE."""

import sys

import sfpp

model_path, source = sys.argv[1:]
finder, how = sfpp.choose_finder(person="full-frame")  # one person fills it; detector="yolox.onnx" finds several
print(how)
with sfpp.load_pose(model_path) as model:
    names = model.contract.keypoints.names
    hands = [index for index, name in enumerate(names) if "wrist" in name]
    for frame, pose in model.stream(source, finder=finder):
        for keypoints_xy, scores in zip(pose.keypoints_xy, pose.scores, strict=True):
            places = [
                f"{names[i]} ({keypoints_xy[i][0]:.0f}, {keypoints_xy[i][1]:.0f})" for i in hands if scores[i] > 0.3
            ]
            print(f"{frame.time_s:6.2f} s  {', '.join(places) or 'no hand to be seen'}")
