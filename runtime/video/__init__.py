"""Frames from files, folders and cameras; a model at work on them; results into videos, pictures, masks and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfpp.runtime.imports import lazy_names

if TYPE_CHECKING:
    from sfpp.runtime.events import Event
    from sfpp.runtime.video.delivery import Delivery, SourceSinks
    from sfpp.runtime.video.frame import Frame, Source
    from sfpp.runtime.video.mailbox import Policy
    from sfpp.runtime.video.pipeline import Answer, Pipeline
    from sfpp.runtime.video.sinks.opening import Sink, folder_sink, open_sink, picture_sink, snapshot_sink
    from sfpp.runtime.video.sinks.records import frame_record, keypoints_file, record_lines
    from sfpp.runtime.video.sinks.thread import SinkThread
    from sfpp.runtime.video.sources.opening import open_source

_NAMES = {
    "sfpp.runtime.events": ("Event",),
    "sfpp.runtime.video.delivery": ("Delivery", "SourceSinks"),
    "sfpp.runtime.video.frame": ("Frame", "Source"),
    "sfpp.runtime.video.mailbox": ("Policy",),
    "sfpp.runtime.video.pipeline": ("Answer", "Pipeline"),
    "sfpp.runtime.video.sinks.opening": ("Sink", "folder_sink", "open_sink", "picture_sink", "snapshot_sink"),
    "sfpp.runtime.video.sinks.records": ("frame_record", "keypoints_file", "record_lines"),
    "sfpp.runtime.video.sinks.thread": ("SinkThread",),
    "sfpp.runtime.video.sources.opening": ("open_source",),
}

__all__ = [
    "Answer",
    "Delivery",
    "Event",
    "Frame",
    "Pipeline",
    "Policy",
    "Sink",
    "SinkThread",
    "Source",
    "SourceSinks",
    "folder_sink",
    "frame_record",
    "keypoints_file",
    "open_sink",
    "open_source",
    "picture_sink",
    "record_lines",
    "snapshot_sink",
]

__getattr__ = lazy_names(__name__, _NAMES)
