"""Frames from files, folders and cameras; segmented frames and skeletons into videos, pictures, masks and JSON."""

from __future__ import annotations

from sfpp.runtime.events import Event
from sfpp.runtime.video.frame import Frame, Source
from sfpp.runtime.video.pipeline import Answer, Pipeline
from sfpp.runtime.video.pose_run import PoseReport, TrackedPose, run_pose
from sfpp.runtime.video.run import RunReport
from sfpp.runtime.video.segmentation_run import run_segmentation
from sfpp.runtime.video.sinks.opening import Sink, folder_sink, open_sink, picture_sink, snapshot_sink
from sfpp.runtime.video.sinks.records import KeypointsFile, keypoints_file
from sfpp.runtime.video.sinks.thread import Policy
from sfpp.runtime.video.sources.opening import open_source

__all__ = [
    "Answer",
    "Event",
    "Frame",
    "KeypointsFile",
    "Pipeline",
    "Policy",
    "PoseReport",
    "RunReport",
    "Sink",
    "Source",
    "TrackedPose",
    "folder_sink",
    "keypoints_file",
    "open_sink",
    "open_source",
    "picture_sink",
    "run_pose",
    "run_segmentation",
    "snapshot_sink",
]
