"""Frames from files, folders and cameras; a model at work on them; results into videos, pictures, masks and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfpp.runtime.imports import lazy_names

if TYPE_CHECKING:
    from sfpp.runtime.events import Event as Event
    from sfpp.runtime.video.delivery import Delivery as Delivery, SourceSinks as SourceSinks
    from sfpp.runtime.video.frame import Frame as Frame, Source as Source
    from sfpp.runtime.video.mailbox import Policy as Policy
    from sfpp.runtime.video.pipeline import Answer as Answer, Pipeline as Pipeline
    from sfpp.runtime.video.sinks.opening import (
        Sink as Sink,
        folder_sink as folder_sink,
        open_sink as open_sink,
        snapshot_sink as snapshot_sink,
    )
    from sfpp.runtime.video.sinks.records import (
        frame_record as frame_record,
        keypoints_file as keypoints_file,
        record_lines as record_lines,
    )
    from sfpp.runtime.video.sinks.thread import SinkThread as SinkThread
    from sfpp.runtime.video.sources.opening import open_source as open_source

__getattr__, __all__ = lazy_names(
    __name__,
    {
        "sfpp.runtime.events": "Event",
        "sfpp.runtime.video.delivery": "Delivery SourceSinks",
        "sfpp.runtime.video.frame": "Frame Source",
        "sfpp.runtime.video.mailbox": "Policy",
        "sfpp.runtime.video.pipeline": "Answer Pipeline",
        "sfpp.runtime.video.sinks.opening": "Sink folder_sink open_sink snapshot_sink",
        "sfpp.runtime.video.sinks.records": "frame_record keypoints_file record_lines",
        "sfpp.runtime.video.sinks.thread": "SinkThread",
        "sfpp.runtime.video.sources.opening": "open_source",
    },
)
