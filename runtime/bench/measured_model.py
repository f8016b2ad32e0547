"""A model opened for measuring: its three stages as functions, whatever its task, and what it is fed.

A frame where the file has a contract, random values where nothing is known of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.backends import Backend, Choice, TensorInfo
from sfpp.runtime.contract import METADATA_KEY, ModelContract, contract_from_json
from sfpp.runtime.errors import UsageError
from sfpp.runtime.images import Image
from sfpp.runtime.imports import import_cv2
from sfpp.runtime.pixels.nv12 import nv12_from_bgr
from sfpp.runtime.pixels.pictures import read_image
from sfpp.runtime.pose import PoseEstimator
from sfpp.runtime.segmentation import Segmenter

Shapes = Mapping[str, tuple[int, ...]]
ANY_INPUT = ""


@dataclass(frozen=True)
class StageTimes:
    """Durations of one run: frame to tensor, the network alone, outputs to labels or keypoints."""

    prepare_ms: float
    infer_ms: float
    finish_ms: float

    @property
    def whole_ms(self) -> float:
        """From the frame to its labels or keypoints."""
        return self.prepare_ms + self.infer_ms + self.finish_ms


@dataclass(frozen=True, eq=False)
class MeasuredModel:
    """A model and its stages, bound to the frame or the values that it is measured with.

    ``model`` is None for an ONNX file of which nothing is known; its first and last stage do nothing. ``load_ms`` is
    how long the library took to open the file.
    """

    backend: Backend
    model: Segmenter | PoseEstimator | None
    load_ms: float
    prepare: Callable[[], Any]
    infer: Callable[[Any], Any]
    finish: Callable[[Any, Any], object]

    def run(self, *, clock: Callable[[], float] = time.perf_counter) -> StageTimes:
        """Run the whole path once and time its stages.

        Raises:
            BackendError: the model failed.
            ModelFileError: its outputs do not fit its contract.
        """
        # The stages of one frame, one after the other, as a pipeline runs them: the network meets the caches as the
        # stages before it leave them, which a loop over the network alone would flatter.
        start = clock()
        prepared = self.prepare()
        ready = clock()
        outputs = self.infer(prepared)
        done = clock()
        self.finish(outputs, prepared)
        end = clock()
        return StageTimes((ready - start) * 1e3, (done - ready) * 1e3, (end - done) * 1e3)


def open_model(
    choice: Choice,
    *,
    bench_frame: Callable[[], BenchFrame],
    shapes: Shapes,
    seed: int = 0,
    notify: Callable[[str], object] | None = None,
) -> tuple[MeasuredModel, str]:
    """Open a model file with or without a contract; return it, and a line that says in which library it runs and why.

    Args:
        choice: the .onnx file, the library, and how that opens it.
        bench_frame: gives the frame; called for a model with a contract only, as it may need a video library.
        shapes: sizes that a model without a contract leaves open; see :func:`random_inputs`.
        seed: of the random values for a model without a contract.
        notify: called with warnings.

    Raises:
        SfppError: it cannot be opened, or fed.
    """
    start = time.perf_counter()
    opened, reason = choice.open(notify)
    load_ms = (time.perf_counter() - start) * 1e3
    try:
        text = opened.metadata.get(METADATA_KEY)
        if text is None:
            return _foreign(opened, load_ms, shapes=shapes, seed=seed), reason
        contract = contract_from_json(text, origin=f"the contract in {choice.path.name}")
        return with_frame(opened, contract, bench_frame(), load_ms=load_ms), reason
    except BaseException:
        opened.close()
        raise


def with_frame(backend: Backend, contract: ModelContract, bench_frame: BenchFrame, *, load_ms: float) -> MeasuredModel:
    """Bind a model that has a contract, in whatever library, to the frame that it is measured with."""
    frame_bgr = bench_frame.for_model(contract)
    if contract.task == "pose":
        estimator = PoseEstimator(backend, contract)
        height, width = frame_bgr.shape[:2]
        # One person who fills the frame: a pose model's time is that of its crops, wherever they were cut.
        prepare = partial(estimator.prepare, frame_bgr, [(0, 0, width, height)])
        return MeasuredModel(backend, estimator, load_ms, prepare, estimator.infer, estimator.finish)
    segmenter = Segmenter(backend, contract)
    prepare_frame = partial(segmenter.prepare, frame_bgr)
    return MeasuredModel(backend, segmenter, load_ms, prepare_frame, segmenter.infer, segmenter.finish)


def _foreign(backend: Backend, load_ms: float, *, shapes: Shapes, seed: int) -> MeasuredModel:
    inputs = random_inputs(backend.inputs, shapes=shapes, seed=seed)
    return MeasuredModel(backend, None, load_ms, lambda: inputs, backend.run, lambda outputs, prepared: None)


@dataclass(frozen=True, eq=False)
class BenchFrame:
    """The frame that models with a contract see.

    ``frame_bgr`` is (H, W, 3) uint8 BGR. Where ``fitted``, it is brought to each segmentation model's input size first.
    """

    frame_bgr: Image
    fitted: bool

    def for_model(self, contract: ModelContract) -> Image:
        """Return the frame that this model is timed with, (H, W, 3) uint8 BGR, or NV12 where its camera gives that."""
        height, width = contract.input.size_hw
        if not self.fitted or contract.task != "segmentation":
            return self.frame_bgr
        # A model for 4K gets a 4K frame, as its camera would give: the labels' time is that of the frame's size.
        cv2 = import_cv2(purpose="preparing images")
        frame: Image = cv2.resize(self.frame_bgr, (width, height), interpolation=cv2.INTER_LINEAR)
        spec = contract.input
        return nv12_from_bgr(frame, spec.matrix) if spec.layout == "NV12" and spec.matrix else frame


def open_frame(path: Path | None) -> BenchFrame:
    """Read the image to measure with; None takes the first frame of the shipped clip, brought to each model's size.

    Raises:
        MediaError: the file is not an image.
        MissingDependencyError: neither OpenCV nor PyAV is installed.
    """
    if path is not None:
        return BenchFrame(read_image(path), fitted=False)
    from sfpp.runtime.video.sources.opening import open_source  # the video library only when there is no image

    # A real street scene: how long labels take depends on how many borders there are.
    with open_source("demo") as source:
        return BenchFrame(next(iter(source)).image_bgr, fitted=True)


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
    declared = info.size
    given = shapes.get(info.name, shapes.get(ANY_INPUT))
    if given is None:
        raise UsageError(
            f"the input {info.name!r} has the shape {declared}, whose open sizes must be given: "
            f"--input-shape {declared.replace('?', 'N')}"
        )
    if not info.fits(given):
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
