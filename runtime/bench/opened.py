"""A model opened for measuring: its three stages as functions, whatever its task."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from sfpp.runtime.backends import Backend, Choice
from sfpp.runtime.bench.inputs import Picture, Shapes, random_inputs
from sfpp.runtime.contract import METADATA_KEY, ModelContract, contract_from_json
from sfpp.runtime.pose import PoseEstimator
from sfpp.runtime.segmentation import Segmenter


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
class OpenedModel:
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

    @property
    def contract(self) -> ModelContract | None:
        """What is known of the file."""
        return None if self.model is None else self.model.contract

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
    picture: Callable[[], Picture],
    shapes: Shapes,
    seed: int = 0,
    notify: Callable[[str], object] | None = None,
) -> tuple[OpenedModel, str]:
    """Open a model file with or without a contract; return it, and a line that says in which library it runs and why.

    Args:
        choice: the .onnx file, the library, and how that opens it.
        picture: gives the frame; called for a model with a contract only, as it may need a video library.
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
        return with_picture(opened, contract, picture(), load_ms=load_ms), reason
    except BaseException:
        opened.close()
        raise


def with_picture(backend: Backend, contract: ModelContract, picture: Picture, *, load_ms: float) -> OpenedModel:
    """Bind a model that has a contract, in whatever library, to the frame that it is measured with."""
    frame_bgr = picture.for_model(contract)
    if contract.task == "pose":
        estimator = PoseEstimator(backend, contract)
        height, width = frame_bgr.shape[:2]
        # One person who fills the frame: a pose model's time is that of its crops, wherever they were cut.
        prepare = partial(estimator.prepare, frame_bgr, [(0, 0, width, height)])
        return OpenedModel(backend, estimator, load_ms, prepare, estimator.infer, estimator.finish)
    segmenter = Segmenter(backend, contract)
    prepare_frame = partial(segmenter.prepare, frame_bgr)
    return OpenedModel(backend, segmenter, load_ms, prepare_frame, segmenter.infer, segmenter.finish)


def _foreign(backend: Backend, load_ms: float, *, shapes: Shapes, seed: int) -> OpenedModel:
    inputs = random_inputs(backend.inputs, shapes=shapes, seed=seed)
    return OpenedModel(backend, None, load_ms, lambda: inputs, backend.run, lambda outputs, prepared: None)
