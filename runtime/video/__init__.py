"""Frames from files, folders and cameras; segmented frames into videos, pictures and masks."""

from __future__ import annotations

from sfpp.runtime.video.frames import Frame, Source
from sfpp.runtime.video.run import RunReport, run_segmentation
from sfpp.runtime.video.sinks import Sink, folder_sink, open_sink, picture_sink, snapshot_sink
from sfpp.runtime.video.sources import open_source

__all__ = [
    "Frame",
    "RunReport",
    "Sink",
    "Source",
    "folder_sink",
    "open_sink",
    "open_source",
    "picture_sink",
    "run_segmentation",
    "snapshot_sink",
]
