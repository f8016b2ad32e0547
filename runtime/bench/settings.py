"""What to measure, and how long: the settings of one run of the benchmark."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from sfpp.runtime.backends import PRECISIONS, BackendOptions, Precision, backend_names
from sfpp.runtime.errors import ModelFileError, UsageError, did_you_mean

AUTO = "auto"

# Fewer rounds than this say nothing about the spread, however long one takes.
MIN_ROUNDS = 3


@dataclass(frozen=True)
class BackendSpec:
    """Which library runs a model, and what it computes in; None leaves the choice to the runtime, as ``load`` does."""

    name: str | None = None
    precision: Precision | None = None

    def __str__(self) -> str:
        name = self.name or AUTO
        return f"{name}:{self.precision}" if self.precision else name

    def options(self, *, threads: int | None = None, profile: bool = False, cache: bool = True) -> BackendOptions:
        """Return how a model is opened under this spec."""
        return BackendOptions(threads=threads, precision=self.precision, profile=profile, cache=cache)


def backend_spec(text: str) -> BackendSpec:
    """Read ``NAME[:PRECISION]``, such as ``openvino:bf16``; the name ``auto`` leaves the library open.

    Raises:
        UsageError: a name or a precision that does not exist.
    """
    name, colon, precision = text.partition(":")
    known = (AUTO, *backend_names())
    if name not in known:
        # argparse hands every word behind --backend to it, models too.
        hint = "; models come before --backend" if name.endswith(".onnx") else ""
        raise UsageError(
            f"unknown backend {name!r}{did_you_mean(name, known)}; expected {', '.join(known)}, "
            f"each with an optional precision as in openvino:bf16{hint}"
        )
    if colon and precision not in PRECISIONS:
        raise UsageError(
            f"unknown precision {precision!r} in {text!r}{did_you_mean(precision, PRECISIONS)}; "
            f"expected one of {', '.join(PRECISIONS)}"
        )
    return BackendSpec(None if name == AUTO else name, cast(Precision, precision) if colon else None)


@dataclass(frozen=True)
class BenchSettings:
    """The settings of one run, for ``sfpp-bench`` and for :func:`sfpp.runtime.bench.bench`.

    Attributes:
        models: ONNX files, with a contract or without.
        backends: what runs each of them; by default what :func:`sfpp.runtime.load` chooses.
        image: frame for models with a contract; None takes one of the shipped clip, resized to each model's input.
        runs: rounds, in each of which every model runs once.
        warmup: runs of each model before the first round.
        seconds: no round begins later than this, though there are at least three (or ``runs``).
        threads: threads within an operator; None leaves the choice to the backend.
        input_shapes: sizes that models without a contract leave open, by the input's name; "" for the others.
        profile: measure each operator too, in runs of their own.
        peak: measure the machine's own best, to compare with.
        memory: measure each model's peak memory, in a process of its own.
        self_test: replay each file's self-test on its first use in a backend. A row that fails it is not measured.
        seed: of the order within rounds and of random values.

    Raises:
        UsageError: no model, or a number that cannot be meant.
        ModelFileError: a model that is not a file.
    """

    models: tuple[Path, ...]
    backends: tuple[BackendSpec, ...] = (BackendSpec(),)
    image: Path | None = None
    runs: int = 30
    warmup: int = 2
    seconds: float = 60.0  # 30 rounds of three models at 3840x2160 would take ten minutes
    threads: int | None = None
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    profile: bool = False
    peak: bool = True
    memory: bool = True
    self_test: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.models:
            raise UsageError("no model is given: give at least one .onnx file")
        # Before anything is opened, which may take minutes.
        for path in self.models:
            if not path.is_file():
                raise ModelFileError(f"{path} is not a file; give the .onnx file that sfpp-export wrote, or another")
        if self.runs < 1 or self.warmup < 0:
            raise UsageError(f"runs is {self.runs} and warmup {self.warmup}, expected at least 1 and 0")
        if not 0 < self.seconds < math.inf:
            raise UsageError(f"seconds is {self.seconds}, expected a positive number")


def bench_settings(
    models: Sequence[str | os.PathLike[str]],
    *,
    backends: Sequence[str | BackendSpec] = (),
    image: str | os.PathLike[str] | None = None,
    **options: Any,
) -> BenchSettings:
    """Return settings from options as people write them.

    Args:
        models: files.
        backends: also as ``NAME[:PRECISION]``, such as ``openvino:bf16``; none is the default.
        image: a file.
        options: the other ones of :class:`BenchSettings`.

    Raises:
        UsageError, ModelFileError: as for :func:`backend_spec` and :class:`BenchSettings`.
    """
    return BenchSettings(
        models=tuple(map(Path, models)),
        backends=tuple(backend_spec(each) if isinstance(each, str) else each for each in backends) or (BackendSpec(),),
        image=None if image is None else Path(image),
        **options,
    )
