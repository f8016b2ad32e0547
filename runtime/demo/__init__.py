"""The clip that ships with sfpp, for a first run without any data of one's own."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

CLIP_NAME = "highway.mp4"


def demo_clip() -> Path:
    """Return the shipped clip: a motorway seen from a car, 960x540 pixels, 5 seconds at 25 frames a second, H.264."""
    # sfpp is always installed as plain files (never run from a zip), so the resource has a path of its own.
    return Path(str(resources.files(__name__).joinpath(CLIP_NAME)))
