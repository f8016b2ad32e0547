"""A model and live sources: the freshest frame or every frame, one source or several, answers as they come."""

from __future__ import annotations

from sfpp.runtime.video.outlets.sink_thread import Policy
from sfpp.runtime.video.streaming.delivery import Delivery, Outlets, draw_with
from sfpp.runtime.video.streaming.pipeline import Answer, Pipeline

__all__ = ["Answer", "Delivery", "Outlets", "Pipeline", "Policy", "draw_with"]
