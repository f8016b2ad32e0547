"""Live sources by URI: cameras, network streams, GStreamer pipelines, raw frames from a pipe, a synthetic scene."""

from __future__ import annotations

from sfpp.runtime.video.live.address import is_uri
from sfpp.runtime.video.live.credentials import without_credentials
from sfpp.runtime.video.live.opening import SCHEMES, open_uri

__all__ = ["SCHEMES", "is_uri", "open_uri", "without_credentials"]
