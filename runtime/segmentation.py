"""Semantic segmentation: frames in, one class label a pixel at the frame's own size out."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.backends.protocol import Arrays, Backend
from sfpp.runtime.contract import ModelContract, OutputKind
from sfpp.runtime.errors import BackendError, UsageError
from sfpp.runtime.images import Image, Placement, batch_from_frames, bgr_from_frame, require_frames
from sfpp.runtime.imports import import_cv2
from sfpp.runtime.labels import (
    NO_CLASS,
    Labels,
    Masks,
    labels_from_logits,
    labels_of_masks,
    labels_resized,
    logits_beside,
    logits_resized,
)
from sfpp.runtime.model import OpenedModel, Step
from sfpp.runtime.motion.options import check_logits
from sfpp.runtime.overlay import LegendEntry, Palette, draw_labels, draw_legend
from sfpp.runtime.text import aligned

if TYPE_CHECKING:
    from sfpp.runtime.motion.options import FromKey, Motion
    from sfpp.runtime.video.frame import Frame

_SHARE_DIGITS = 4
_SMALLEST_SHARE = 0.0005  # that is worth a line


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The answer for one frame.

    Attributes:
        labels: (H, W) uint8 at the frame's size, an index into ``classes``. Of a multi-label model: of the classes that
            a pixel has the one with the highest logit, or the first where the graph itself gives masks; 255 for none.
        classes: the classes' names.
        palette: an (R, G, B) color, 0..255, for each class.
        masks: (K, H, W) uint8 of a multi-label model: 1 where a pixel has the class, and else 0; None for any other.
        from_key: of a frame that the network did not see: which frame the labels were carried from, and how far they
            are believed; None for all others.
    """

    labels: Labels
    classes: tuple[str, ...]
    palette: Palette
    masks: Masks | None = None
    from_key: FromKey | None = None

    def shares(self) -> dict[str, float]:
        """Return the fraction of the frame's pixels, 0..1, that each class covers; all classes, in their order.

        Those of a multi-label model overlap, and may add up to more than 1.
        """
        shares = dict.fromkeys(self.classes, 0.0)
        for name, share in zip(self.classes, self._shares_by_class(), strict=False):
            shares[name] += share  # data sets exist in which two classes have the same name
        return shares

    def draw(self, frame_bgr: NDArray[Any], *, alpha: float = 0.5, legend: bool = True) -> Image:
        """Return the frame with the classes' colors over it, and a legend of the classes that are present.

        Args:
            frame_bgr: the frame that was segmented, (H, W, 3) uint8 BGR, or grey or BGRA; it is left alone.
            alpha: 0 shows the frame alone, 1 the colors alone.
            legend: whether to draw names and shares into the upper left corner.

        Raises:
            UsageError: a frame of another size, or an alpha outside 0..1.
            MediaError: the frame is not an image.
        """
        image = draw_labels(frame_bgr, self.labels, self.palette, alpha=alpha)
        if self.masks is not None:
            np.copyto(image, bgr_from_frame(frame_bgr), where=(self.labels == NO_CLASS)[..., np.newaxis])
        if legend:
            facts = zip(self.classes, self.palette, self._shares_by_class(), strict=False)
            draw_legend(image, [LegendEntry(name, color, share) for name, color, share in facts])
        return image

    def to_record(self) -> dict[str, Any]:
        """Return the classes' ``shares`` of the frame, 0..1, without those that cover nothing.

        Of a frame that the network did not see also ``carried``: ``from`` which frame, how many ``seconds`` older that
        is, and how far its labels are believed here, 0..1.
        """
        rounded = {name: round(share, _SHARE_DIGITS) for name, share in self.shares().items()}
        record: dict[str, Any] = {"shares": {name: share for name, share in rounded.items() if share}}
        if self.from_key is not None:
            record["carried"] = self.from_key.to_record()
        return record

    def summary(self) -> list[str]:
        """Return the classes' shares as lines of text, the largest first."""
        ranked = sorted(self.shares().items(), key=lambda item: -item[1])
        return aligned([(name, f"{share:.1%}") for name, share in ranked if share >= _SMALLEST_SHARE])

    def mask_images(self) -> dict[str, NDArray[np.uint8]]:
        """Return pictures of the answer, each (H, W) uint8, by what goes behind the frame's name in a file's.

        One of the label values, without anything behind the name; of a multi-label model one for each class, 255 where
        it is and else 0, with the class's name behind a hyphen.
        """
        if self.masks is None:
            return {"": self.labels}
        return dict(zip(_endings(self.classes), self.masks * np.uint8(255), strict=True))

    def _shares_by_class(self) -> tuple[float, ...]:
        cv2 = import_cv2(purpose="counting pixels")
        if self.masks is not None:
            return tuple(cv2.countNonZero(np.ascontiguousarray(mask)) / mask.size for mask in self.masks)
        # Three times as fast as numpy.bincount, which first makes int64 of every label.
        counts = cv2.calcHist([np.ascontiguousarray(self.labels)], [0], None, [256], [0, 256])
        return tuple(float(count) / self.labels.size for count in counts.ravel())


def _endings(classes: Sequence[str]) -> list[str]:
    """Return ``-NAME`` for each class, fit for a file name; one that is there already gets its number behind it."""
    endings: list[str] = []
    for index, name in enumerate(classes):
        ending = "-" + re.sub(r"[^\w.+-]+", "_", name)
        taken = ending.casefold() in (each.casefold() for each in endings)
        endings.append(f"{ending}-{index}" if taken else ending)
    return endings


@dataclass(frozen=True, eq=False)
class PreparedFrames:
    """A batch as the model takes it, and where each frame lies in it; a batch may hold fewer frames than its size."""

    tensor: NDArray[Any]
    placements: tuple[Placement, ...]


class Segmenter(OpenedModel[Segmentation]):
    """A segmentation model, ready to run: ``segmenter(frame_bgr).labels``.

    A call is ``prepare``, ``infer``, ``finish``; a pipeline may run the three in threads of their own and time them.

    Args:
        backend: the opened model; it is closed with the segmenter.
        contract: what the model takes and gives.

    Raises:
        ContractError: the model has neither logits nor labels or masks.
    """

    def __init__(self, backend: Backend, contract: ModelContract) -> None:
        decided: OutputKind = "masks" if contract.multi_label else "labels"
        super().__init__(backend, contract, contract.output_of_kind("logits", decided))

    @property
    def description(self) -> str:
        """The model and the library that runs it, in one line for people."""
        spec, contract = self.contract.input, self.contract
        model = f"{contract.family} {contract.size} {contract.variant} {contract.precision}"
        return f"{model}, input {spec.width}x{spec.height} (width x height), {self._backend.description}"

    def __call__(self, frame_bgr: NDArray[Any]) -> Segmentation:
        """Segment one frame: (H, W, 3) uint8 BGR of any size, or grey (H, W), or BGRA.

        A model that takes NV12 is given that, too, (H * 3 / 2, W) uint8 of its matrix, and no grey; of the model's size
        it is not copied.

        Raises:
            MediaError: not an image.
            BackendError: the model failed, or gave NaN.
            ModelFileError: the model's output does not fit its contract.
        """
        prepared = self.prepare(frame_bgr)
        return self.finish(self.infer(prepared), prepared)

    @property
    def batch(self) -> int:
        """How many frames :meth:`steps` takes at a time, at most."""
        return self.contract.input.batch

    @property
    def takes_one(self) -> bool:
        """Whether the network takes a single frame as it is, and does not compute a batch for it."""
        return self.contract.input.rows(1) == 1

    def steps(self, *, motion: Motion | None = None, ahead: Collection[str] = ()) -> Sequence[Step]:
        """Return preparing, inference and labels, as a pipeline runs them; see :class:`sfpp.runtime.model.Model`.

        Args:
            motion: which frames the network sees, and how steady labels are.
            ahead: names of the sources whose frames may wait for the next one that the network sees.

        Raises:
            UsageError: motion for a model that gives labels, or a model whose input is not made of frames.
        """
        require_frames(self.contract.input)
        if motion:
            from sfpp.runtime.motion.steps import motion_steps

            check_logits(self.contract, wanted="carrying labels along motion")
            return motion_steps(self, motion, ahead)

        def prepare(frames: Sequence[Frame], _: None) -> PreparedFrames:
            return self.prepare_batch([frame.image_bgr for frame in frames])

        def infer(frames: Sequence[Frame], prepared: PreparedFrames) -> tuple[PreparedFrames, Arrays]:
            return prepared, self.infer(prepared)

        def labels(
            frames: Sequence[Frame], inferred: tuple[PreparedFrames, Arrays]
        ) -> list[tuple[Frame, Segmentation]]:
            prepared, outputs = inferred
            return list(zip(frames, self.finish_batch(outputs, prepared), strict=True))

        return [Step("prepare", prepare), Step("infer", infer), Step("labels", labels)]

    def following_steps(
        self,
        motion: Motion,
        ask: Callable[[Frame], Future[tuple[PreparedFrames, Arrays]]],
        give_up: Callable[[str], object] | None = None,
    ) -> Sequence[Step]:
        """Return the steps that show every frame at once; see :class:`sfpp.runtime.video.frame.Follows`.

        Raises:
            UsageError: a model that gives labels, or whose input is not made of frames.
        """
        from sfpp.runtime.motion.following import following_steps

        require_frames(self.contract.input)
        check_logits(self.contract, wanted="carrying labels along motion")
        return following_steps(self, motion, ask, give_up)

    def prepare(self, frame_bgr: NDArray[Any]) -> PreparedFrames:
        """Make the model's input from one frame.

        Raises:
            MediaError: not an image.
        """
        return self.prepare_batch([frame_bgr])

    def prepare_batch(self, frames_bgr: Sequence[NDArray[Any]]) -> PreparedFrames:
        """Make the model's input from at most ``contract.input.batch`` frames.

        Raises:
            MediaError: not an image.
            UsageError: no frame or too many.
        """
        return PreparedFrames(*batch_from_frames(frames_bgr, self.contract.input, self.lent_input(len(frames_bgr))))

    def infer(self, prepared: PreparedFrames) -> dict[str, NDArray[Any]]:
        """Run the model: its outputs by name.

        Raises:
            BackendError: the library refuses the input or fails.
        """
        return self._backend.run({self.contract.input.name: prepared.tensor})

    def finish(self, outputs: Arrays, prepared: PreparedFrames) -> Segmentation:
        """Make the answer for the one frame of ``prepared``.

        Raises:
            ModelFileError: the outputs do not fit the contract.
            BackendError: the logits contain NaN.
            UsageError: ``prepared`` holds several frames.
        """
        if len(prepared.placements) != 1:
            raise UsageError(f"{len(prepared.placements)} frames were prepared: use finish_batch")
        return self.finish_batch(outputs, prepared)[0]

    def finish_batch(self, outputs: Arrays, prepared: PreparedFrames) -> list[Segmentation]:
        """Make one answer for each frame of ``prepared``, in their order.

        Raises:
            ModelFileError: the outputs do not fit the contract.
            BackendError: the logits contain NaN.
        """
        values = self.checked_output(outputs)
        return [self.answer(values[index], placement) for index, placement in enumerate(prepared.placements)]

    def answer(self, values: NDArray[Any], placement: Placement) -> Segmentation:
        """Make the answer for a frame.

        Args:
            values: of the output, for this frame: (classes, h, w) logits or masks, or (h, w) labels.
            placement: where the frame lies in the model's input.
        """
        contract, decoded = self.contract, partial(self._labels, placement=placement)
        resized = (placement.height, placement.width) != placement.frame_size_hw
        if self.output.kind == "logits" and self.output.through_input and resized:
            values = logits_resized(values, contract.input.size_hw, align_corners=self.output.align_corners)
        if not contract.multi_label:
            return Segmentation(decoded(values), contract.classes, contract.palette)
        threshold = contract.threshold
        assert threshold is not None, "a multi-label model has a threshold"
        if self.output.kind == "masks":
            masks = np.stack([decoded(each) for each in values])
            return Segmentation(labels_of_masks(masks), contract.classes, contract.palette, masks)
        masks = np.stack([decoded(logits_beside(each, threshold)) for each in values])
        labels = decoded(values)
        labels[~masks.any(axis=0)] = NO_CLASS
        return Segmentation(labels, contract.classes, contract.palette, masks)

    def _labels(self, values: NDArray[Any], placement: Placement) -> Labels:
        size_hw, aligned = self.contract.input.size_hw, self.output.align_corners
        height, width = values.shape[-2:]
        region = placement.region((height, width), model_size_hw=size_hw, align_corners=aligned)
        if self.output.kind == "logits":
            return labels_from_logits(values, placement.frame_size_hw, region=region, align_corners=aligned)
        labels = values.astype(np.uint8, copy=False)
        return labels_resized(labels, placement.frame_size_hw, region=region, align_corners=aligned)

    def checked_output(self, outputs: Arrays) -> NDArray[Any]:
        """Return the output that the contract names, once its shape, type and range are what the contract promises.

        Raises:
            ModelFileError: shape or type are not.
            BackendError: the range is not.
        """
        name, kind = self.output.name, self.output.kind
        values = self.named_output(outputs)
        classes = len(self.contract.classes)
        leading = (classes,) * (kind != "labels")
        most = classes - 1 if kind == "labels" else 1  # of masks
        number = np.floating if kind == "logits" else np.integer
        fits = np.issubdtype(values.dtype, number) and values.ndim == len(leading) + 3
        fits = fits and self.contract.input.is_batch(len(values)) and values.shape[1:-2] == leading
        if not fits or not self._size_fits(values.shape[-2:]):
            raise self._misfit(values, self._expected_output())
        if kind != "logits" and (values.max() > most or values.min() < 0):
            raise BackendError(
                f"the output {name!r} has {kind} {values.min()}..{values.max()}, expected 0..{most} for {classes} "
                "classes; the contract does not belong to this model"
            )
        return values

    def _expected_output(self) -> str:
        rows, columns = self.cells_hw
        batch, classes = self.contract.input.batch, len(self.contract.classes)
        if self.output.kind == "logits":
            return f"{batch}x{classes}x{rows}x{columns} (batch, classes, rows, columns) floating point"
        if self.output.kind == "masks":
            return f"{batch}x{classes}x{rows}x{columns} (batch, classes, rows, columns) integers"
        return f"{batch}x{rows}x{columns} (batch, rows, columns) integers"
