"""The demonstration weights and picture that ship with the package; see the README beside them for data and terms."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

_WEIGHTS = "segformer_b0_camvid.safetensors"
_POSE_WEIGHTS = "segformer_b0_lsp14_pose.safetensors"
_FRAME = "street.jpg"


def demo_checkpoint() -> Path:
    """Return the path of the shipped SegFormer-B0 trained on CamVid: 11 classes, float16 safetensors."""
    return _shipped(_WEIGHTS)


def demo_person() -> Path:
    """Return the path of the shipped picture of a person before a camera, 640x480 pixels, JPEG."""
    return _shipped("person.jpg")


def demo_pose_checkpoint() -> Path:
    """Return the path of the shipped SegFormer-B0 for human pose: 14 joints, crops of 192x256 pixels, float16."""
    return _shipped(_POSE_WEIGHTS)


def demo_frame() -> Path:
    """Return the path of the shipped picture: a motorway seen from a car, 960x540 pixels, JPEG."""
    return _shipped(_FRAME)


def _shipped(name: str) -> Path:
    # sfpp is always installed as plain files (never run from a zip), so a resource has a path of its own.
    return Path(str(resources.files(__name__).joinpath(name)))
