"""What is known of the frames beside their pixels: true labels, or people's boxes and keypoints."""

from __future__ import annotations

import os
from dataclasses import dataclass

from sfpp.runtime.contract import ModelContract
from sfpp.runtime.errors import UsageError
from sfpp.runtime.people.boxes_file import BoxesFile
from sfpp.tooling.truth import KeypointTruth, LabelFolder


@dataclass(frozen=True, eq=False)
class Annotations:
    """Where the truth is looked up; all None where only the pixels are known.

    Attributes:
        labels: for a segmentation model.
        keypoints: for a pose model.
        boxes: people found beforehand, for a pose model without annotated people.
    """

    labels: LabelFolder | None = None
    keypoints: KeypointTruth | None = None
    boxes: BoxesFile | None = None

    @property
    def have_truth(self) -> bool:
        """Whether answers can be held against the truth."""
        return self.labels is not None or self.keypoints is not None

    @property
    def in_scenes(self) -> bool:
        """Whether people were annotated within larger frames, so that a frame without any is no crop of a person."""
        found = () if self.keypoints is None else map(self.keypoints.find, self.keypoints.names)
        return any(people is not None and people.boxes_xywh is not None for people in found)

    def names(self) -> frozenset[str] | None:
        """Return the names of the frames with a truth; None where nothing tells right from wrong."""
        source = self.labels or self.keypoints
        return None if source is None else source.names


def annotations_for(
    contract: ModelContract,
    *,
    labels: str | os.PathLike[str] | None = None,
    boxes: str | os.PathLike[str] | None = None,
    ignore: int | None = None,
) -> Annotations:
    """Open what the user knows about the frames, as this model's task needs it.

    Args:
        contract: the model's.
        labels: a folder of label pictures; for a pose model a COCO data set or an .npz with keypoints.
        boxes: people's boxes, a COCO-style file; for a pose model only.
        ignore: value of label pictures for pixels that do not count; None takes the one beyond the classes.

    Raises:
        UsageError: boxes or ignore for a model that has no use for them.
        MediaError, SfppError: the files cannot be read.
    """
    if contract.keypoints is None:
        if boxes is not None:
            raise UsageError("boxes are for pose models, and this is a segmentation model; leave them off")
        if ignore is not None and labels is None:
            raise UsageError(
                f"ignore is {ignore}, but there are no label pictures; give them with --labels, or leave it off"
            )
        folder = None if labels is None else LabelFolder(labels, classes=len(contract.classes), ignore=ignore)
        return Annotations(labels=folder)
    if ignore is not None:
        raise UsageError("ignore is for label pictures, and this is a pose model; leave it off")
    truth = None if labels is None else KeypointTruth(labels, keypoints=len(contract.keypoints.names))
    return Annotations(keypoints=truth, boxes=None if boxes is None else BoxesFile(boxes))
