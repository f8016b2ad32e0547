"""A model opened for measuring: its three stages as functions, whatever its task."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sfpp.runtime.backends import Backend, BackendOptions, open_backend
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

    ``contract`` is None for an ONNX file of which nothing is known; its first and last stage do nothing. ``load_ms`` is
    how long the library took to open the file.
    """

    backend: Backend
    contract: ModelContract | None
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
    path: Path,
    *,
    backend: str | None,
    options: BackendOptions,
    picture: Callable[[], Picture],
    shapes: Shapes,
    seed: int = 0,
    notify: Callable[[str], object] | None = None,
) -> OpenedModel:
    """Open a model file with or without a contract.

    Args:
        path: the .onnx file.
        backend: the library's name; None leaves the choice to the runtime.
        options: how the library opens it.
        picture: gives the frame; called for a model with a contract only, as it may need a video library.
        shapes: sizes that a model without a contract leaves open; see :func:`random_inputs`.
        seed: of the random values for a model without a contract.
        notify: called with warnings, and where there was a choice with a line that says which library it fell on.

    Raises:
        SfppError: it cannot be opened, or fed.
    """
    start = time.perf_counter()
    opened, reason = open_backend(path, backend=backend, options=options, notify=notify)
    load_ms = (time.perf_counter() - start) * 1e3
    if notify is not None and backend is None:
        notify(f"{path.name} runs in {reason}")
    try:
        text = opened.metadata.get(METADATA_KEY)
        if text is None:
            return _foreign(opened, load_ms, shapes=shapes, seed=seed)
        contract = contract_from_json(text, origin=f"the contract in {path.name}")
        return with_picture(opened, contract, picture(), load_ms=load_ms)
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
        return OpenedModel(backend, contract, load_ms, prepare, estimator.infer, estimator.finish)
    segmenter = Segmenter(backend, contract)
    prepare_frame = partial(segmenter.prepare, frame_bgr)
    return OpenedModel(backend, contract, load_ms, prepare_frame, segmenter.infer, segmenter.finish)


def _foreign(backend: Backend, load_ms: float, *, shapes: Shapes, seed: int) -> OpenedModel:
    inputs = random_inputs(backend.inputs, shapes=shapes, seed=seed)
    return OpenedModel(backend, None, load_ms, lambda: inputs, backend.run, lambda outputs, prepared: None)
