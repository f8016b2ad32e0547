"""Frames for calibration: which ones, and in the very form in which the runtime feeds them to the model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.contract import InputSpec
from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.images import batch_from_frames
from sfpp.runtime.video import open_source


def chosen_indices(available: int, wanted: int, *, seed: int = 0) -> list[int]:
    """Choose ``wanted`` of ``available`` frames at random, ascending; the same ones for the same seed.

    Raises:
        UsageError: fewer than one frame is wanted.
    """
    if wanted < 1:
        raise UsageError(f"{wanted} calibration frames were asked for, expected at least 1")
    order = np.random.default_rng(seed).permutation(available)
    return sorted(int(index) for index in order[:wanted])


def calibration_inputs(source: str, spec: InputSpec, *, frames: int = 64, seed: int = 0) -> Iterator[NDArray[Any]]:
    """Yield model inputs (batch, ...) of the spec's shape and type, one at a time, each of one frame of ``source``.

    Args:
        source: an image, a folder of images, or a video file.
        spec: the model's input; a batch larger than 1 repeats its frame.
        frames: how many to choose; with fewer there are, all are used, with a warning.
        seed: of the choice.

    Raises:
        MediaError: nothing can be read, or the source does not know its length, as a camera.
    """
    with open_source(source) as opened:
        if opened.count is None:
            raise MediaError(f"{source} has no known number of frames; calibrate on a video file or a folder of images")
        wanted = set(chosen_indices(opened.count, frames, seed=seed))
        given = 0
        for frame in opened:
            if frame.index in wanted:
                given += 1
                yield batch_from_frames([frame.image_bgr], spec)[0]
    if given < frames:
        warnings.warn(f"{source} gave {given} calibration frames, {frames} were asked for", stacklevel=2)
