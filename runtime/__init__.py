"""sfpp on the device: open a model file, segment frames.

    import sfpp.runtime as sfpp
    model = sfpp.load("model.onnx")
    result = model(frame_bgr)  # result.labels: (H, W) uint8 at the frame's size

Importing this loads neither OpenCV nor an inference library; they are imported when first needed.
"""

from __future__ import annotations

from sfpp.runtime.contract import InputSpec, ModelContract, OutputSpec
from sfpp.runtime.errors import (
    BackendError,
    ContractError,
    MediaError,
    MissingDependencyError,
    ModelFileError,
    SfppError,
    UsageError,
)
from sfpp.runtime.images import read_image, write_image
from sfpp.runtime.model_file import load, read_contract_file
from sfpp.runtime.segmentation import Segmentation, Segmenter

__all__ = [
    "BackendError",
    "ContractError",
    "InputSpec",
    "MediaError",
    "MissingDependencyError",
    "ModelContract",
    "ModelFileError",
    "OutputSpec",
    "Segmentation",
    "Segmenter",
    "SfppError",
    "UsageError",
    "load",
    "read_contract_file",
    "read_image",
    "write_image",
]
