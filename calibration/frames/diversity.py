"""Frames that look least alike."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from sfpp.calibration.frames.shelves import Shelf
from sfpp.runtime.images import Image
from sfpp.runtime.imports import import_cv2

_THUMBNAIL = 8  # pixels a side: where the sky is and what color the road has, and no detail


def most_diverse(shelf: Shelf, pool: Collection[int], wanted: int) -> tuple[list[int], int]:
    """Choose the frames that look least alike: one after the other the one farthest from all chosen before it.

    Gonzalez's rule for k centers (Theoretical Computer Science 38, 1985), on thumbnails.

    Returns:
        The frames by number, and how many of the pool cannot be read.
    """
    numbers, thumbnails = [], []
    for index, frame in shelf.take(pool):
        numbers.append(index)
        thumbnails.append(_thumbnail(frame.image_bgr))
    if not numbers:
        return [], len(pool)
    points = np.stack(thumbnails)
    distance = np.linalg.norm(points - points.mean(axis=0), axis=1)
    chosen = [int(distance.argmin())]  # the most ordinary one first
    distance = np.full(len(points), np.inf)
    while len(chosen) < min(wanted, len(points)):
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
        distance[chosen] = -1  # also where several frames are the same picture
        chosen.append(int(distance.argmax()))
    return [numbers[position] for position in chosen], len(pool) - len(numbers)


def _thumbnail(image_bgr: Image) -> NDArray[np.float32]:
    cv2 = import_cv2(purpose="comparing frames")
    small = cv2.resize(image_bgr, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32).ravel()
