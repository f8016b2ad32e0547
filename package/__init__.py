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
    from sfpp.calibration import calibrate as calibrate
    from sfpp.export import export_onnx as export_onnx
    from sfpp.runtime import (
        BackendError as BackendError,
        ContractError as ContractError,
        MediaError as MediaError,
        MissingDependencyError as MissingDependencyError,
        ModelContract as ModelContract,
        ModelFileError as ModelFileError,
        Pose as Pose,
        PoseEstimator as PoseEstimator,
        Segmentation as Segmentation,
        Segmenter as Segmenter,
        SelfTestError as SelfTestError,
        SfppError as SfppError,
        UsageError as UsageError,
        load as load,
        load_pose as load_pose,
        load_segmenter as load_segmenter,
        read_contract_file as read_contract_file,
        read_image as read_image,
        write_image as write_image,
    )
    from sfpp.runtime.bench import bench as bench
    from sfpp.runtime.people import FollowedPose as FollowedPose, choose_finder as choose_finder
    from sfpp.runtime.tensorrt import build_engine as build_engine
    from sfpp.runtime.video import (
        Answer as Answer,
        Delivery as Delivery,
        Event as Event,
        Frame as Frame,
        Pipeline as Pipeline,
        Source as Source,
        folder_sink as folder_sink,
        frame_record as frame_record,
        keypoints_file as keypoints_file,
        open_sink as open_sink,
        open_source as open_source,
        record_lines as record_lines,
    )
    from sfpp.runtime.viewer import Viewer as Viewer

    __version__: str

_lazy, _names = lazy_names(
    __name__,
    {
        "sfpp.calibration": "calibrate",
        "sfpp.export": "export_onnx",
        "sfpp.runtime": (
            "BackendError ContractError MediaError MissingDependencyError ModelContract ModelFileError Pose "
            "PoseEstimator Segmentation Segmenter SelfTestError SfppError UsageError load load_pose "
            "load_segmenter read_contract_file read_image write_image"
        ),
        "sfpp.runtime.bench": "bench",
        "sfpp.runtime.people": "FollowedPose choose_finder",
        "sfpp.runtime.tensorrt": "build_engine",
        "sfpp.runtime.video": (
            "Answer Delivery Event Frame Pipeline Source folder_sink frame_record keypoints_file open_sink "
            "open_source record_lines"
        ),
        "sfpp.runtime.viewer": "Viewer",
    },
)
__all__ = [*_names, "__version__"]


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name != "__version__":
        return _lazy(name)
    from importlib.metadata import version

    return version("sfpp")


def __dir__() -> list[str]:
    """Offer the names in a notebook, before any of them was asked for."""
    return __all__
