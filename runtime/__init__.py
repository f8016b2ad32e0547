"""sfpp on the device: open a model file, segment frames or find people's keypoints.

    import sfpp
    model = sfpp.load("model.onnx")
    result = model(frame_bgr)  # result.labels: (H, W) uint8 at the frame's size
    model = sfpp.load("pose.onnx")
    result = model(frame_bgr, boxes_xywh)  # result.keypoints_xy: (P, K, 2) float32 in frame pixels

Importing this loads neither OpenCV nor an inference library; they are imported when first needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfpp.runtime.imports import lazy_names

if TYPE_CHECKING:
    from sfpp.runtime.contract import InputSpec, KeypointSpec, ModelContract, OutputSpec
    from sfpp.runtime.errors import (
        BackendError,
        ContractError,
        MediaError,
        MissingDependencyError,
        ModelFileError,
        SelfTestError,
        SfppError,
        UsageError,
    )
    from sfpp.runtime.images import read_image, write_image
    from sfpp.runtime.keypoints import KEYPOINT_SETS, keypoint_set
    from sfpp.runtime.model import SelfTestState
    from sfpp.runtime.model_file import load, load_pose, load_segmenter, read_contract_file
    from sfpp.runtime.pose import Pose, PoseEstimator
    from sfpp.runtime.segmentation import Segmentation, Segmenter

_NAMES = {
    "sfpp.runtime.contract": ("InputSpec", "KeypointSpec", "ModelContract", "OutputSpec"),
    "sfpp.runtime.errors": (
        "BackendError",
        "ContractError",
        "MediaError",
        "MissingDependencyError",
        "ModelFileError",
        "SelfTestError",
        "SfppError",
        "UsageError",
    ),
    "sfpp.runtime.images": ("read_image", "write_image"),
    "sfpp.runtime.keypoints": ("KEYPOINT_SETS", "keypoint_set"),
    "sfpp.runtime.model": ("SelfTestState",),
    "sfpp.runtime.model_file": ("load", "load_pose", "load_segmenter", "read_contract_file"),
    "sfpp.runtime.pose": ("Pose", "PoseEstimator"),
    "sfpp.runtime.segmentation": ("Segmentation", "Segmenter"),
}

__all__ = [
    "KEYPOINT_SETS",
    "BackendError",
    "ContractError",
    "InputSpec",
    "KeypointSpec",
    "MediaError",
    "MissingDependencyError",
    "ModelContract",
    "ModelFileError",
    "OutputSpec",
    "Pose",
    "PoseEstimator",
    "Segmentation",
    "Segmenter",
    "SelfTestError",
    "SelfTestState",
    "SfppError",
    "UsageError",
    "keypoint_set",
    "load",
    "load_pose",
    "load_segmenter",
    "read_contract_file",
    "read_image",
    "write_image",
]

__getattr__ = lazy_names(__name__, _NAMES)
