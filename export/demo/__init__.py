"""The demonstration weights, which are a package of their own, and the pictures that exports are checked with."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from sfpp.runtime.contract import Task
from sfpp.runtime.errors import MissingDependencyError

_WEIGHTS = "segformer_b0_camvid.safetensors"
_POSE_WEIGHTS = "segformer_b0_lsp14_pose.safetensors"


def demo_checkpoint() -> Path:
    """Return the path of the SegFormer-B0 trained on CamVid: 11 classes, float16 safetensors.

    Raises:
        MissingDependencyError: the package ``sfpp-demo`` is not installed.
    """
    return _weights(_WEIGHTS)


def demo_pose_checkpoint() -> Path:
    """Return the path of the SegFormer-B0 for human pose: 14 joints, crops of 192x256 pixels, float16.

    Raises:
        MissingDependencyError: the package ``sfpp-demo`` is not installed.
    """
    return _weights(_POSE_WEIGHTS)


def demo_person() -> Path:
    """Return the path of the shipped picture of a person before a camera, 640x480 pixels, JPEG."""
    return _file(__name__, "person.jpg")


def demo_frame() -> Path:
    """Return the path of the shipped picture: a motorway seen from a car, 960x540 pixels, JPEG."""
    return _file(__name__, "street.jpg")


def demo_image(task: Task) -> Path:
    """Return the path of the shipped picture that gives a model of a task something to answer."""
    return demo_person() if task == "pose" else demo_frame()


def _weights(name: str) -> Path:
    try:
        return _file("sfpp_demo", name)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "sfpp-demo",
            extra="",
            purpose="the demonstration model",
            advice="its weights are not for commercial use and a package of their own; give a checkpoint of your own "
            "with --weights, or pip install ./demo-weights in a clone of the repository",
        ) from error


def _file(package: str, name: str) -> Path:
    # Packages are always installed as plain files (never run from a zip), so a resource has a path of its own.
    return Path(str(resources.files(package).joinpath(name)))
