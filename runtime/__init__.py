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
    from sfpp.runtime.contract import (
        InputSpec as InputSpec,
        KeypointSpec as KeypointSpec,
        ModelContract as ModelContract,
        OutputSpec as OutputSpec,
        read_contract_file as read_contract_file,
    )
    from sfpp.runtime.errors import (
        BackendError as BackendError,
        ContractError as ContractError,
        MediaError as MediaError,
        MissingDependencyError as MissingDependencyError,
        ModelFileError as ModelFileError,
        SelfTestError as SelfTestError,
        SfppError as SfppError,
        UsageError as UsageError,
    )
    from sfpp.runtime.keypoints import KEYPOINT_SETS as KEYPOINT_SETS, keypoint_set as keypoint_set
    from sfpp.runtime.model import SelfTestState as SelfTestState
    from sfpp.runtime.model_file import (
        load as load,
        load_pose as load_pose,
        load_segmenter as load_segmenter,
    )
    from sfpp.runtime.pixels.pictures import read_image as read_image, write_image as write_image
    from sfpp.runtime.pose import Pose as Pose, PoseEstimator as PoseEstimator
    from sfpp.runtime.segmentation import Segmentation as Segmentation, Segmenter as Segmenter

__getattr__, __all__ = lazy_names(
    __name__,
    {
        "sfpp.runtime.contract": "InputSpec KeypointSpec ModelContract OutputSpec read_contract_file",
        "sfpp.runtime.errors": (
            "BackendError ContractError MediaError MissingDependencyError ModelFileError SelfTestError SfppError "
            "UsageError"
        ),
        "sfpp.runtime.pixels.pictures": "read_image write_image",
        "sfpp.runtime.keypoints": "KEYPOINT_SETS keypoint_set",
        "sfpp.runtime.model": "SelfTestState",
        "sfpp.runtime.model_file": "load load_pose load_segmenter",
        "sfpp.runtime.pose": "Pose PoseEstimator",
        "sfpp.runtime.segmentation": "Segmentation Segmenter",
    },
)
