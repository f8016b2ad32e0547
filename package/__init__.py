"""sfpp: trained SegFormer, SegFormer++ and EDAFormer checkpoints on the edge. The whole of it, from one import.

    import sfpp
    report = sfpp.export_onnx(path="model.onnx", variant="fast", res="1920x1080")
    model = sfpp.load("model.onnx")
    result = model(sfpp.read_image("street.jpg"))  # result.labels: (H, W) uint8 at the frame's size
    for frame, result in model.stream("rtsp://camera/street"):
        ...

Nothing is loaded before it is used: what exports needs torch, what runs a model does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfpp.runtime.imports import lazy_names

if TYPE_CHECKING:
    from sfpp.calibration import calibrate
    from sfpp.export import export_onnx
    from sfpp.runtime import (
        BackendError,
        ContractError,
        MediaError,
        MissingDependencyError,
        ModelContract,
        ModelFileError,
        Pose,
        PoseEstimator,
        Segmentation,
        Segmenter,
        SelfTestError,
        SfppError,
        UsageError,
        load,
        load_pose,
        load_segmenter,
        read_contract_file,
        read_image,
        write_image,
    )
    from sfpp.runtime.bench import bench
    from sfpp.runtime.people import FollowedPose, choose_finder
    from sfpp.runtime.tensorrt import build_engine
    from sfpp.runtime.video import (
        Answer,
        Delivery,
        Event,
        Frame,
        Pipeline,
        Source,
        folder_sink,
        frame_record,
        keypoints_file,
        open_sink,
        open_source,
        record_lines,
    )
    from sfpp.runtime.viewer import Viewer

    __version__: str

_NAMES = {
    "sfpp.calibration": ("calibrate",),
    "sfpp.export": ("export_onnx",),
    "sfpp.runtime": (
        "BackendError",
        "ContractError",
        "MediaError",
        "MissingDependencyError",
        "ModelContract",
        "ModelFileError",
        "Pose",
        "PoseEstimator",
        "Segmentation",
        "Segmenter",
        "SelfTestError",
        "SfppError",
        "UsageError",
        "load",
        "load_pose",
        "load_segmenter",
        "read_contract_file",
        "read_image",
        "write_image",
    ),
    "sfpp.runtime.bench": ("bench",),
    "sfpp.runtime.people": ("FollowedPose", "choose_finder"),
    "sfpp.runtime.tensorrt": ("build_engine",),
    "sfpp.runtime.video": (
        "Answer",
        "Delivery",
        "Event",
        "Frame",
        "Pipeline",
        "Source",
        "folder_sink",
        "frame_record",
        "keypoints_file",
        "open_sink",
        "open_source",
        "record_lines",
    ),
    "sfpp.runtime.viewer": ("Viewer",),
}

__all__ = [
    "Answer",
    "BackendError",
    "ContractError",
    "Delivery",
    "Event",
    "FollowedPose",
    "Frame",
    "MediaError",
    "MissingDependencyError",
    "ModelContract",
    "ModelFileError",
    "Pipeline",
    "Pose",
    "PoseEstimator",
    "Segmentation",
    "Segmenter",
    "SelfTestError",
    "SfppError",
    "Source",
    "UsageError",
    "Viewer",
    "__version__",
    "bench",
    "build_engine",
    "calibrate",
    "choose_finder",
    "export_onnx",
    "folder_sink",
    "frame_record",
    "keypoints_file",
    "load",
    "load_pose",
    "load_segmenter",
    "open_sink",
    "open_source",
    "read_contract_file",
    "read_image",
    "record_lines",
    "write_image",
]

_lazy = lazy_names(__name__, _NAMES)


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name != "__version__":
        return _lazy(name)
    from importlib.metadata import version

    return version("sfpp")


def __dir__() -> list[str]:
    """Offer the names in a notebook, before any of them was asked for."""
    return __all__
