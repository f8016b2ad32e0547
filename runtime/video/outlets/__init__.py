"""Outlets of a live pipeline: files that survive a crash, lines of JSON, pipes, a window, receivers elsewhere."""

from __future__ import annotations

from sfpp.runtime.video.outlets.push import Push, push_sink
from sfpp.runtime.video.outlets.raw import RawPictures, RawTarget, raw_sink
from sfpp.runtime.video.outlets.record_lines import RecordLines, record_lines
from sfpp.runtime.video.outlets.recording import Recording, recording_sink
from sfpp.runtime.video.outlets.records import FrameRecord, frame_record, pose_record, segmentation_record
from sfpp.runtime.video.outlets.sink_thread import Policy, SinkThread
from sfpp.runtime.video.outlets.window import Windows, window_sink

__all__ = [
    "FrameRecord",
    "Policy",
    "Push",
    "RawPictures",
    "RawTarget",
    "RecordLines",
    "Recording",
    "SinkThread",
    "Windows",
    "frame_record",
    "pose_record",
    "push_sink",
    "raw_sink",
    "record_lines",
    "recording_sink",
    "segmentation_record",
    "window_sink",
]
