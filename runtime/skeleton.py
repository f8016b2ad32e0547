"""Skeletons on a frame: limbs, joints, and a label for each person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.contract import KeypointSpec
from sfpp.runtime.errors import UsageError
from sfpp.runtime.images import Image, bgr_from_frame
from sfpp.runtime.imports import import_cv2
from sfpp.runtime.overlay import darken, put_text, text_width

Side = Literal["left", "right", "middle"]

_PURPOSE = "drawing skeletons"
# Blue, orange and light green as (B, G, R): told apart by people who see red and green alike, too.
SIDE_COLORS_BGR: dict[Side, tuple[int, int, int]] = {
    "left": (255, 144, 30),
    "right": (0, 140, 255),
    "middle": (120, 240, 160),
}
# A limb's width, as a share of the person's and at most of the image's size.
_WIDTH_OF_PERSON = 0.02
_WIDTH_OF_IMAGE = 0.01
# A label's height, likewise; and never less than can be read, in pixels.
_LINE_OF_PERSON = 0.15
_LINE_OF_IMAGE = 0.05
_SMALLEST_LINE = 14
# OpenCV draws at 1/8 pixel, so that skeletons in a video do not jump by whole ones.
_SHIFT = 3


def draw_skeletons(
    frame_bgr: NDArray[Any],
    keypoints_xy: NDArray[Any],
    scores: NDArray[Any],
    spec: KeypointSpec,
    *,
    threshold: float = 0.3,
    ids: Sequence[int] | None = None,
) -> Image:
    """Return the frame with the people's skeletons over it; the frame itself is left alone.

    Limbs and joints of the left side, of the right side and of the middle have colors of their own; each person is
    labeled with its id, if given, and the mean score of the keypoints that are shown. Keypoints that are not finite, or
    further outside of the frame than its own size, are left out like those below the threshold.

    Args:
        frame_bgr: (H, W, 3) uint8 BGR, or grey or BGRA.
        keypoints_xy: (P, K, 2), x then y in frame pixels.
        scores: (P, K), 0..1.
        spec: the keypoints' limbs and left/right pairs.
        threshold: the score from which on a keypoint is shown.
        ids: a number for each person.

    Raises:
        UsageError: a threshold outside 0..1, or shapes that do not fit each other.
        MediaError: the frame is not an image.
    """
    if not 0 <= threshold <= 1:
        raise UsageError(f"threshold is {threshold}, expected 0 (every keypoint) to 1 (only those that are sure)")
    _check_shapes(keypoints_xy, scores, spec, ids)
    image: Image = bgr_from_frame(frame_bgr).copy()
    shown = _shown(keypoints_xy, scores, image.shape[:2], threshold)
    people = [int(person) for person in np.flatnonzero(shown.any(axis=1))]
    for person in people:
        _draw_person(image, keypoints_xy[person], shown[person], spec)
    for person in people:  # on top of all skeletons
        seen = shown[person]
        number = "" if ids is None else f"#{ids[person]} "
        _draw_label(image, f"{number}{scores[person][seen].mean():.2f}", keypoints_xy[person][seen])
    return image


def sides(spec: KeypointSpec) -> tuple[Side, ...]:
    """Return for each keypoint on which side of the body it lies, as told by the left/right pairs."""
    found: list[Side] = ["middle"] * len(spec.names)
    for left, right in spec.flip_pairs:
        found[left], found[right] = "left", "right"
    return tuple(found)


def limb_side(a: Side, b: Side) -> Side:
    """Return the side of a limb between two keypoints: a side's own, or the middle where it joins both sides."""
    if a == b or b == "middle":
        return a
    return b if a == "middle" else "middle"


def _check_shapes(
    keypoints_xy: NDArray[Any], scores: NDArray[Any], spec: KeypointSpec, ids: Sequence[int] | None
) -> None:
    people, count = len(scores), len(spec.names)
    if scores.shape != (people, count) or keypoints_xy.shape != (people, count, 2):
        raise UsageError(
            f"keypoints of shape {keypoints_xy.shape} and scores of shape {scores.shape} given, "
            f"expected (people, {count}, 2) and (people, {count}) for these {count} keypoints"
        )
    if ids is not None and len(ids) != people:
        raise UsageError(f"{len(ids)} ids given for {people} people, expected one for each")


def _shown(
    keypoints_xy: NDArray[Any], scores: NDArray[Any], size_hw: tuple[int, ...], threshold: float
) -> NDArray[np.bool_]:
    size_xy = np.array(size_hw[::-1])
    with np.errstate(invalid="ignore"):  # comparing with NaN is false, which is what is wanted
        near = (keypoints_xy > -size_xy) & (keypoints_xy < 2 * size_xy)
        shown: NDArray[np.bool_] = near.all(axis=-1) & (scores >= threshold)
    return shown


def _draw_person(image: Image, points_xy: NDArray[Any], seen: NDArray[np.bool_], spec: KeypointSpec) -> None:
    cv2 = import_cv2(purpose=_PURPOSE)
    width = _scaled(points_xy[seen], image, _WIDTH_OF_PERSON, _WIDTH_OF_IMAGE, least=1)
    side_of = sides(spec)
    fixed = {int(index): _fixed_point(points_xy[index]) for index in np.flatnonzero(seen)}
    for a, b in spec.skeleton:
        if a in fixed and b in fixed:
            color = SIDE_COLORS_BGR[limb_side(side_of[a], side_of[b])]
            cv2.line(image, fixed[a], fixed[b], color, width, cv2.LINE_AA, _SHIFT)
    for index, center in fixed.items():
        color = SIDE_COLORS_BGR[side_of[index]]
        cv2.circle(image, center, (width + 1) << _SHIFT, color, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _scaled(points_xy: NDArray[Any], image: Image, of_person: float, of_image: float, *, least: int) -> int:
    """Return a size in pixels: a share of the person's larger extent, at most a share of the image's shorter side."""
    extent = float(np.ptp(points_xy, axis=0).max())
    pixels: float = min(of_person * extent, of_image * min(image.shape[:2]))
    return max(least, round(pixels))


def _fixed_point(point_xy: NDArray[Any]) -> tuple[int, int]:
    x, y = np.rint(point_xy * 2.0**_SHIFT)
    return int(x), int(y)


def _draw_label(image: Image, text: str, points_xy: NDArray[Any]) -> None:
    """Write the text on a dark ground above the person's highest point, inside the image if it has room for it."""
    line = _scaled(points_xy, image, _LINE_OF_PERSON, _LINE_OF_IMAGE, least=_SMALLEST_LINE)
    width = text_width(text, line)
    x, y = points_xy[points_xy[:, 1].argmin()]
    margin = line // 4
    left = max(0, min(round(float(x)) - width // 2 - margin, image.shape[1] - width - 2 * margin))
    top = max(0, min(round(float(y)) - 2 * line, image.shape[0] - line))
    darken(image[top : top + line, left : left + width + 2 * margin])
    put_text(image, text, (left + margin, top + round(line * 0.76)), line)
