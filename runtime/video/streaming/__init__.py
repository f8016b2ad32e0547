"""A model and live sources: the freshest frame or every frame, one source or several, answers as they come."""

from __future__ import annotations

from sfpp.runtime.video.streaming.pipeline import Answer, Pipeline, Policy

__all__ = ["Answer", "Pipeline", "Policy"]
