"""What a model is fed while it is measured: a picture, or random values where nothing is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.backends import TensorInfo
from sfpp.runtime.contract import ModelContract
from sfpp.runtime.errors import UsageError
from sfpp.runtime.images import Image, read_image
from sfpp.runtime.imports import import_cv2

Shapes = Mapping[str, tuple[int, ...]]

ANY_INPUT = ""


@dataclass(frozen=True, eq=False)
class Picture:
    """The frame that models with a contract see.

    ``frame_bgr`` is (H, W, 3) uint8 BGR. Where ``fitted``, it is brought to each segmentation model's input size first.
    """

    frame_bgr: Image
    fitted: bool

    def for_model(self, contract: ModelContract) -> Image:
        """Return the frame that this model is timed with, (H, W, 3) uint8 BGR."""
        height, width = contract.input.size_hw
        if not self.fitted or contract.task != "segmentation":
            return self.frame_bgr
        # A model for 4K gets a 4K frame, as its camera would give: the labels' time is that of the frame's size.
        cv2 = import_cv2(purpose="preparing images")
        frame: Image = cv2.resize(self.frame_bgr, (width, height), interpolation=cv2.INTER_LINEAR)
        return frame


def open_picture(path: Path | None) -> Picture:
    """Read the picture to measure with; None takes the first frame of the shipped clip, brought to each model's size.

    Raises:
        MediaError: the file is not a picture.
        MissingDependencyError: neither OpenCV nor PyAV is installed.
    """
    if path is not None:
        return Picture(read_image(path), fitted=False)
    from sfpp.runtime.video.sources.opening import open_source  # the video library only when there is no picture

    # A real street scene: how long labels take depends on how many borders there are.
    with open_source("demo") as source:
        return Picture(next(iter(source)).image_bgr, fitted=True)


def input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read ``1x3x512x512``, or ``NAME:1x3x512x512`` for one input of several; without a name the name is empty.

    Raises:
        UsageError: not sizes from 1 with an x between them.
    """
    name, _, sizes = text.rpartition(":")  # from the right: TensorFlow's names end in ":0"
    parts = sizes.split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"{text!r} is not a shape; expected sizes from 1 such as 1x3x512x512, or NAME:1x3x512x512")
    return name, tuple(int(part) for part in parts)


def random_inputs(inputs: Sequence[TensorInfo], *, shapes: Shapes, seed: int) -> dict[str, NDArray[Any]]:
    """Fill every input of a model of which nothing is known.

    Floating-point values are standard normal, as normalized images are; bytes 0..255; other integers and booleans 0 and
    1, which are valid indices everywhere.

    Args:
        inputs: what the model declares.
        shapes: sizes for inputs that leave some open, by name; ``ANY_INPUT`` for the rest.
        seed: of the random generator.

    Raises:
        UsageError: a size is open and not given, or what is given does not fit.
    """
    generator = np.random.default_rng(seed)
    if len(inputs) == 1 and ANY_INPUT in shapes:  # no other can be meant, also where its sizes are fixed to others
        shapes = {inputs[0].name: shapes[ANY_INPUT], **shapes}
    return {info.name: _random_values(info, _full_shape(info, shapes), generator) for info in inputs}


def _full_shape(info: TensorInfo, shapes: Shapes) -> tuple[int, ...]:
    fixed = tuple(size for size in info.shape if size is not None)
    if info.name not in shapes and len(fixed) == len(info.shape):
        return fixed
    declared = "x".join("?" if size is None else str(size) for size in info.shape)
    given = shapes.get(info.name, shapes.get(ANY_INPUT))
    if given is None:
        raise UsageError(
            f"the input {info.name!r} has the shape {declared}, whose open sizes must be given: "
            f"--input-shape {declared.replace('?', 'N')}"
        )
    fits = len(given) == len(info.shape) and all(
        want is None or have == want for have, want in zip(given, info.shape, strict=True)
    )
    if not fits:
        raise UsageError(
            f"the input {info.name!r} has the shape {declared} (? is open), "
            f"and {'x'.join(map(str, given))} does not fit; give --input-shape {info.name}:{declared.replace('?', 'N')}"
        )
    return given


def _random_values(info: TensorInfo, shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[Any]:
    try:
        dtype = np.dtype(info.dtype)
    except TypeError:
        raise UsageError(f"the input {info.name!r} is of type {info.dtype}, which cannot be filled at random") from None
    if dtype.kind == "f":
        return generator.standard_normal(shape, np.float32).astype(dtype)
    largest = 255 if dtype == np.uint8 else 1
    return generator.integers(0, largest, shape, endpoint=True).astype(dtype)
