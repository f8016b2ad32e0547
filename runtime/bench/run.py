"""Measuring several models on several backends in one run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sfpp.runtime.bench.campaign import Campaign
from sfpp.runtime.bench.report import BenchReport
from sfpp.runtime.bench.settings import BackendSpec, BenchSettings, backend_spec
from sfpp.runtime.errors import BackendError


def bench(
    models: Sequence[str | os.PathLike[str]],
    *,
    backends: Sequence[str | BackendSpec] = (),
    image: str | os.PathLike[str] | None = None,
    runs: int = 30,
    warmup: int = 2,
    seconds: float = 60.0,
    threads: int | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    profile: bool = False,
    peak: bool = True,
    memory: bool = True,
    self_test: bool = True,
    seed: int = 0,
    notify: Callable[[str], object] | None = None,
) -> BenchReport:
    """Measure each model on each backend, all in turn, so that what else the machine does slows them alike.

    A model that a backend cannot run, or runs wrongly, becomes a row that says why. Ctrl-C ends the measuring; the
    report then holds what there is, and says so.

    Args:
        models: ONNX files, with a contract or without.
        backends: ``NAME[:PRECISION]``, such as ``openvino:bf16``; none takes what :func:`sfpp.runtime.load` chooses.
        image: picture for models with a contract; None takes one of the shipped clip, brought to each model's size.
        runs: rounds, in each of which every model runs once.
        warmup: runs of each model before the first round.
        seconds: no round begins later than this, though there are at least three (or ``runs``).
        threads: threads within an operator; None leaves the choice to the backend.
        input_shapes: sizes that models without a contract leave open, by the input's name; "" for the others.
        profile: measure each operator too, in runs of their own.
        peak: measure the machine's own best, to compare with.
        memory: measure each model's peak memory, in a process of its own.
        self_test: replay each file's self-test on its first use in a backend. A row that fails it is not measured, as
            a fast wrong answer is none.
        seed: of the order within rounds and of random values.
        notify: called with lines that say what is being done.

    Raises:
        BackendError: not one model could be run on any backend.
        UsageError: a setting that cannot be meant.
        ModelFileError: a model that is not a file.
        MediaError: an image that cannot be read.
    """
    settings = BenchSettings(
        models=tuple(Path(model) for model in models),
        backends=tuple(backend_spec(each) if isinstance(each, str) else each for each in backends) or (BackendSpec(),),
        image=None if image is None else Path(image),
        runs=runs,
        warmup=warmup,
        seconds=seconds,
        threads=threads,
        input_shapes=dict(input_shapes or {}),
        profile=profile,
        peak=peak,
        memory=memory,
        self_test=self_test,
        seed=seed,
    )
    return measure(Campaign(settings, notify=notify or (lambda line: None)))


def measure(campaign: Campaign) -> BenchReport:
    """Take the steps of a campaign until they are done or Ctrl-C comes, and report.

    Raises:
        BackendError: not one model could be run.
        KeyboardInterrupt: Ctrl-C came before there was a single sample.
    """
    interrupted = False
    try:
        with contextlib.closing(campaign):
            campaign.load()
            campaign.time()
        _check_some_ran(campaign)
        # The models are closed: what follows opens its own, and a device's memory may hold only one at a time.
        campaign.measure_memory()
        campaign.measure_peaks()
        campaign.profile()
    except KeyboardInterrupt:
        if not campaign.has_samples:
            raise
        interrupted = True
    return campaign.report(interrupted=interrupted)


def _check_some_ran(campaign: Campaign) -> None:
    if campaign.has_samples:
        return
    rows = campaign.report(interrupted=False).rows
    reasons = dict.fromkeys(f"{row.name} on {row.backend}: {row.failure}" for row in rows)
    raise BackendError(f"nothing could be measured: {'; '.join(reasons)}")
