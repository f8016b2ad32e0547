"""Human pose: a frame and people's boxes in, keypoints in frame pixels out."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sfpp.runtime.backends.protocol import Arrays, Backend
from sfpp.runtime.contract import KeypointSpec, ModelContract
from sfpp.runtime.crops import Boxes, checked_boxes, crop_from_box, frame_from_heatmap
from sfpp.runtime.errors import ContractError, UsageError
from sfpp.runtime.images import Image, batch_from_frames, bgr_for
from sfpp.runtime.model import OpenedModel, Step, streamed
from sfpp.runtime.people.heatmaps import Floats, average_with_mirrored, keypoints_from_heatmaps
from sfpp.runtime.skeleton import draw_skeletons
from sfpp.runtime.text import aligned

if TYPE_CHECKING:
    from sfpp.runtime.motion.options import FromKey, Motion
    from sfpp.runtime.people.detections import PersonFinder
    from sfpp.runtime.video.frame import Frame, Source

_PIXEL_DIGITS = 2
_SCORE_DIGITS = 4


@dataclass(frozen=True, eq=False)
class Pose:
    """The answer for the P people of one frame; P may be 0.

    Attributes:
        keypoints_xy: (P, K, 2) float32, x then y in frame pixels, where (0, 0) is the center of the first pixel, so the
            frame spans -0.5..W-0.5; a keypoint may lie outside of it.
        scores: (P, K) float32, 0..1, the heatmaps' maxima.
        boxes_xywh: (P, 4) float32, the boxes as they were given: left, top, width, height in frame pixels.
        spec: the keypoints' names, limbs, and left/right pairs.
        ids: (P,) int64, who they are: the same number for the same person from frame to frame; None where nobody
            follows them.
        from_key: of a frame that the network did not see, and whose people lie between those of the key frames before
            and after: which one is before; None for all others.
    """

    keypoints_xy: Floats
    scores: Floats
    boxes_xywh: Boxes
    spec: KeypointSpec
    ids: NDArray[np.int64] | None = None
    from_key: FromKey | None = None

    def __len__(self) -> int:
        """The number of people."""
        return len(self.scores)

    @property
    def names(self) -> tuple[str, ...]:
        """The keypoints' names."""
        return self.spec.names

    @property
    def skeleton(self) -> tuple[tuple[int, int], ...]:
        """The limbs, as pairs of indices into ``names``."""
        return self.spec.skeleton

    def above(self, threshold: float) -> NDArray[np.bool_]:
        """Return which keypoints have at least this score, (P, K) bool."""
        return self.scores >= threshold

    def draw(self, frame_bgr: NDArray[Any], *, threshold: float = 0.3, ids: Sequence[int] | None = None) -> Image:
        """Return the frame with the people's skeletons over it; without people, a copy.

        Args:
            frame_bgr: the frame that was given, (H, W, 3) uint8 BGR, or grey or BGRA; it is left alone.
            threshold: keypoints with a lower score are left out, and limbs that need them.
            ids: a number for each person, to be written beside the score; None takes the people's own, if any.

        Raises:
            UsageError: a threshold outside 0..1, or another number of ids than of people.
            MediaError: the frame is not an image.
        """
        if ids is None and self.ids is not None:
            ids = self.ids.tolist()
        return draw_skeletons(frame_bgr, self.keypoints_xy, self.scores, self.spec, threshold=threshold, ids=ids)

    def of_people(self, rows: NDArray[np.intp]) -> Pose:
        """Return the pose of some of the people, by their rows."""
        ids = None if self.ids is None else self.ids[rows]
        return replace(
            self,
            keypoints_xy=self.keypoints_xy[rows],
            scores=self.scores[rows],
            boxes_xywh=self.boxes_xywh[rows],
            ids=ids,
        )

    def of_people_above(self, threshold: float) -> Pose:
        """Return the pose of the people who have a keypoint of at least this score."""
        return self.of_people(np.flatnonzero(self.above(threshold).any(axis=1)))

    def to_record(self) -> dict[str, Any]:
        """Return the ``people`` in COCO's form, with a ``track_id`` if they are followed; an empty list for nobody.

        Of each person: ``keypoints`` (x, y in frame pixels and score, one after the other), ``score`` (their mean) and
        ``bbox`` (left, top, width, height). Of a frame that the network did not see also ``carried``: ``from`` which
        key frame on, and how many ``seconds`` older that is.
        """
        record: dict[str, Any] = {"people": [self._person(row) for row in range(len(self))]}
        if self.from_key is not None:
            record["carried"] = self.from_key.to_record()
        return record

    def summary(self) -> list[str]:
        """Return the people's keypoints as lines of text."""
        lines = []
        for row in range(len(self)):
            identity = row + 1 if self.ids is None else self.ids[row]
            lines.append(f"person {identity}, mean score {self.scores[row].mean():.2f}")
            found = zip(self.names, self.keypoints_xy[row], self.scores[row], strict=True)
            lines += aligned([(f"  {name}", f"{x:.1f}", f"{y:.1f}", f"{score:.2f}") for name, (x, y), score in found])
            lines.append("")
        return lines[:-1]

    def _person(self, row: int) -> dict[str, Any]:
        # Rounded as Python's own numbers: float32 has no 0.1.
        found = zip(self.keypoints_xy[row].tolist(), self.scores[row].tolist(), strict=True)
        person: dict[str, Any] = {
            "keypoints": [
                value
                for (x, y), score in found
                for value in (round(x, _PIXEL_DIGITS), round(y, _PIXEL_DIGITS), round(score, _SCORE_DIGITS))
            ],
            "score": round(float(self.scores[row].mean()), _SCORE_DIGITS),
            "bbox": [round(value, _PIXEL_DIGITS) for value in self.boxes_xywh[row].tolist()],
        }
        return person if self.ids is None else {**person, "track_id": int(self.ids[row])}


@dataclass(frozen=True, eq=False)
class PreparedPeople:
    """The people of one frame as the model takes them.

    ``batches`` holds the crops in groups of the model's batch size, the last group filled up; with the flip test, the
    mirrored crops follow the others. ``boxes_xywh`` is (P, 4) float32.
    """

    batches: tuple[NDArray[Any], ...]
    boxes_xywh: Boxes


class PoseEstimator(OpenedModel[Pose]):
    """A top-down pose model, ready to run: ``estimator(frame_bgr, boxes_xywh).keypoints_xy``.

    A call is ``prepare``, ``infer``, ``finish``; a pipeline may run the three in threads of their own and time them.

    Args:
        backend: the opened model; it is closed with the estimator.
        contract: what the model takes and gives.
        flip_test: average with the answer for the mirrored person: more accurate, twice the work.

    Attributes:
        flip_test: the same.

    Raises:
        ContractError: the model has no heatmaps or no keypoints.
        UsageError: a flip test with keypoints of which no left/right pairs are known.
    """

    def __init__(self, backend: Backend, contract: ModelContract, *, flip_test: bool = False) -> None:
        super().__init__(backend, contract, contract.output_of_kind("heatmaps"))
        if contract.keypoints is None:
            raise ContractError(f"this is a {contract.task} model without keypoints; load it with sfpp.runtime.load")
        if flip_test and not contract.keypoints.flip_pairs:
            raise UsageError(
                "the flip test exchanges left and right, but this model's keypoints have no flip_pairs; "
                "export it with a keypoint set that has them, or leave the flip test off"
            )
        self._spec = contract.keypoints
        self.flip_test = flip_test

    @property
    def description(self) -> str:
        """The model and the library that runs it, in one line for people."""
        spec, contract = self.contract.input, self.contract
        model = f"{contract.family} {contract.size} {contract.variant} {contract.precision} pose"
        flip = ", flip test" if self.flip_test else ""
        return (
            f"{model}, {len(self._spec.names)} keypoints, input {spec.width}x{spec.height} (width x height){flip}, "
            f"{self._backend.description}"
        )

    def __call__(self, frame_bgr: NDArray[Any], boxes_xywh: ArrayLike | None = None) -> Pose:
        """Find the keypoints of the people in the boxes.

        Args:
            frame_bgr: (H, W, 3) uint8 BGR of any size, or grey (H, W), or BGRA; for a model that takes NV12 also that,
                (H * 3 / 2, W), and no grey.
            boxes_xywh: (P, 4), left, top, width, height of each person in frame pixels; any number, also none. A box
                may reach beyond the frame. To be given; :meth:`stream` finds people by itself.

        Raises:
            MediaError: not an image.
            UsageError: no boxes, or one with NaN, without area, or wholly outside of the frame.
            BackendError: the model failed, or gave NaN.
            ModelFileError: the model's output does not fit its contract.
        """
        if boxes_xywh is None:
            height, width = bgr_for(frame_bgr, self.contract.input).shape[:2]
            raise UsageError(
                "a pose model is given people's boxes too, as in model(frame_bgr, [(left, top, width, height)]); the "
                f"whole frame is [(0, 0, {width}, {height})], and model.stream(...) finds people by itself"
            )
        prepared = self.prepare(frame_bgr, boxes_xywh)
        return self.finish(self.infer(prepared), prepared)

    def steps(self, *, motion: Motion | None = None, ahead: Collection[str] = ()) -> Sequence[Step]:
        """Return the steps of a :class:`sfpp.runtime.people.FollowedPose` that chooses by itself how to find people."""
        from sfpp.runtime.people import FollowedPose

        return FollowedPose(self).steps(motion=motion, ahead=ahead)

    def stream(
        self,
        *sources: Source | str | os.PathLike[str],
        finder: PersonFinder | None = None,
        detect_every: int = 1,
        threshold: float = 0.3,
        **options: Any,
    ) -> Iterator[tuple[Frame, Pose]]:
        """Yield the frames of sources with the people in them, until they end or the loop is left.

        ``finder``, ``detect_every`` and ``threshold`` are those of :class:`sfpp.runtime.people.FollowedPose`, all else
        is as for :meth:`OpenedModel.stream`.
        """
        from sfpp.runtime.people import FollowedPose

        followed = FollowedPose(self, finder, detect_every=detect_every, threshold=threshold)
        return streamed(followed, sources, **options)

    def prepare(self, frame_bgr: NDArray[Any], boxes_xywh: ArrayLike) -> PreparedPeople:
        """Make the model's inputs: crop each person, and mirror the crops if the flip test asks for it.

        Raises:
            MediaError, UsageError: as for a call.
        """
        image = bgr_for(frame_bgr, self.contract.input)
        height, width = image.shape[:2]
        boxes = checked_boxes(boxes_xywh, (height, width))
        spec, padding = self.contract.input, self._spec.box_padding
        crops = [crop_from_box(image, box, spec.size_hw, padding=padding) for box in boxes]
        if self.flip_test:
            # Mirrored crops are people like the others, so one person fills a batch of two.
            crops += [crop[:, ::-1] for crop in crops]
        # A crop has the input's size already, so this only changes types, color order and layout.
        groups = (crops[start : start + spec.batch] for start in range(0, len(crops), spec.batch))
        batches = (batch_from_frames(group, spec, self.lent_input(len(group)))[0] for group in groups)
        return PreparedPeople(tuple(batches), boxes)

    def infer(self, prepared: PreparedPeople) -> list[dict[str, NDArray[Any]]]:
        """Run the model: its outputs by name for each batch of ``prepared``; nothing for nobody.

        Raises:
            BackendError: the library refuses the input or fails.
        """
        name = self.contract.input.name
        return [self._backend.run({name: batch}) for batch in prepared.batches]

    def finish(self, outputs: Sequence[Arrays], prepared: PreparedPeople) -> Pose:
        """Make the answer from the outputs for each batch of ``prepared``.

        Raises:
            ModelFileError: the outputs do not fit the contract.
            BackendError: the heatmaps contain NaN or infinity.
        """
        boxes = prepared.boxes_xywh
        if not len(boxes):
            return Pose(*self._nobody(), boxes, self._spec)
        heatmaps = np.concatenate([self._checked_output(each) for each in outputs])
        # Whatever comes after the people and their mirror images filled up the last batch.
        if self.flip_test:
            plain, mirrored = heatmaps[: len(boxes)], heatmaps[len(boxes) : 2 * len(boxes)]
            heatmaps = average_with_mirrored(plain, mirrored, self._spec.flip_indices)
        cells, scores = keypoints_from_heatmaps(heatmaps[: len(boxes)])
        rows, columns = heatmaps.shape[2:]
        keypoints_xy = frame_from_heatmap(
            cells, boxes, (rows, columns), self.contract.input.size_hw, padding=self._spec.box_padding
        )
        return Pose(keypoints_xy, scores, boxes, self._spec)

    def _nobody(self) -> tuple[Floats, Floats]:
        count = len(self._spec.names)
        return np.zeros((0, count, 2), np.float32), np.zeros((0, count), np.float32)

    def _checked_output(self, outputs: Arrays) -> NDArray[Any]:
        """Return the heatmaps of one batch, once their shape and type are what the contract promises."""
        spec, values = self.contract.input, self.named_output(outputs)
        leading = spec.batch, len(self._spec.names)
        fits = np.issubdtype(values.dtype, np.floating) and values.ndim == 4 and values.shape[1] == leading[1]
        fits = fits and spec.is_batch(len(values))
        if not fits or not self._size_fits(values.shape[2:]):
            shape = "x".join(map(str, (*leading, *self.cells_hw)))
            raise self._misfit(values, f"{shape} (batch, keypoints, rows, columns) floating point")
        return values
