"""Which subject a model is."""

from __future__ import annotations

from sfpp.calibration.frames.annotations import Annotations
from sfpp.calibration.judging.pose_subject import PoseSubject
from sfpp.calibration.judging.segmentation_subject import SegmentationSubject
from sfpp.calibration.judging.subjects import Subject
from sfpp.runtime.contract import ModelContract


def subject_for(contract: ModelContract, annotations: Annotations) -> Subject:
    """Return what calibration knows of the contract's task."""
    if contract.keypoints is None:
        return SegmentationSubject(contract, annotations)
    return PoseSubject(contract, contract.keypoints, annotations)
