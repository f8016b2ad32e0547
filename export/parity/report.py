"""What a comparison found, in plain figures: as Python, as JSON, and in words."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sfpp.export.parity.differences import Place
from sfpp.export.parity.tolerances import Tolerance
from sfpp.runtime.contract import ModelContract
from sfpp.runtime.files import write_text
from sfpp.runtime.images import Image
from sfpp.runtime.typed_json import json_ready

Mode = Literal["free", "pinned"]


@dataclass(frozen=True)
class OutputReport:
    """The answers of all frames in one mode; errors are absolute unless they are called relative.

    Attributes:
        mode: whether PyTorch matched tokens by itself, or took the graph's matching.
        same: the share, 0..1, of pixels with the same label, or of sure keypoints in the same place.
        worst_same: the same of the worst frame.
        mean_iou: of the labels, with PyTorch's in the place of the truth; None for pose.
        distance_px: the mean and the largest distance of sure keypoints, in the frames' pixels; None for labels.
        relative_error: of the worst batch of frames, root mean square over that of PyTorch's; None where the graph
            answers with labels.
        max_error: the largest of logits or heatmaps.
        mean_error: of the same.
        scale: the largest value of PyTorch's, to see the errors against.
        problem: why answers could not be compared, if some could not.
    """

    mode: Mode
    same: float
    worst_same: float
    mean_iou: float | None = None
    distance_px: tuple[float, float] | None = None
    relative_error: float | None = None
    max_error: float | None = None
    mean_error: float | None = None
    scale: float | None = None
    problem: str = ""


@dataclass(frozen=True)
class PointReport:
    """One part of the network on its worst frames.

    Attributes:
        name: such as ``stages.1/blocks.0/ffn``.
        own: the relative error that it makes by itself, given what the graph gave to it.
        total: the relative error of its values with everything before it; NaN for a layer.
        largest: the largest absolute error that it makes by itself.
        place: where, on the frame called ``frame``.
        gain: the factor from PyTorch's to the graph's values, where that is all the difference.
        gap: for an attention that matches tokens, how much less similar than the best a partner is.
        within: whether own error and gap are within tolerance.
        detail: it is a layer inside the part that ends at the next entry that is none; compared on the first frames.
    """

    name: str
    own: float
    total: float
    largest: float
    place: Place | None
    frame: str
    gain: float | None = None
    gap: float | None = None
    within: bool = True
    detail: bool = False


@dataclass(frozen=True)
class TruthReport:
    """Accuracy against annotations on the frames that have some: mean IoU, 0..1, and by class (NaN: never there)."""

    frames: int
    file_mean_iou: float
    pytorch_mean_iou: float
    file_iou: dict[str, float]
    pytorch_iou: dict[str, float]


@dataclass(frozen=True, eq=False)
class MarkedFrame:
    """A frame on which the answers differ, (H, W, 3) uint8 BGR with marks, and the share that is the same."""

    name: str
    image_bgr: Image
    same: float


@dataclass(frozen=True, eq=False)
class AgreementReport:
    """Everything that was found.

    Attributes:
        model: the file.
        weights: the checkpoint.
        contract: the file's.
        precision: by which it is judged.
        tolerance: what is allowed in it.
        backend: what ran the file.
        points_backend: what ran it with its insides reported; empty where nothing could be seen of them.
        source: where the frames are from.
        frames: their names.
        outputs: one entry a mode.
        points: the parts of the network in its order; empty where the graph does not show them.
        truth: accuracy against annotations, if there are any.
        failures: what is out of tolerance; empty when the file agrees.
        place: where it goes wrong first, and why if that was found out; None when the file agrees.
        notes: what else the reader should know.
        pictures: frames on which answers differ, the worst first.
        seconds: how long it took.
    """

    model: Path
    weights: str
    contract: ModelContract
    precision: str
    tolerance: Tolerance
    backend: str
    points_backend: str
    source: str
    frames: tuple[str, ...]
    outputs: tuple[OutputReport, ...]
    points: tuple[PointReport, ...] = ()
    truth: TruthReport | None = None
    failures: tuple[str, ...] = ()
    place: str | None = None
    notes: tuple[str, ...] = ()
    pictures: tuple[MarkedFrame, ...] = ()
    seconds: float = 0.0

    @property
    def agrees(self) -> bool:
        """Whether everything is within tolerance."""
        return not self.failures

    def to_json(self) -> str:
        """Return everything but pictures, the self-test's too; a number that is not finite becomes null."""
        report = replace(self, contract=replace(self.contract, self_test=None))
        content = {"agrees": self.agrees, **json_ready(report)}
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)

    def write_json(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`to_json` to a file that appears whole or not at all.

        Raises:
            SfppError: the folder does not exist, or the disk is full.
        """
        write_text(path, self.to_json())

    def write_html(self, path: str | os.PathLike[str]) -> None:
        """Write a page that needs nothing but itself.

        Raises:
            SfppError: the folder does not exist, or the disk is full.
        """
        from sfpp.export.parity.page import parity_page  # only who wants a page needs its blocks

        parity_page(self).write(path)
