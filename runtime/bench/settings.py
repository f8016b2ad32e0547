"""What to measure, and how long: the settings of one run of the benchmark."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from sfpp.runtime.backends.choice import AUTO, backend_names
from sfpp.runtime.backends.protocol import PRECISIONS, BackendOptions, Precision
from sfpp.runtime.cli.console import positive_int
from sfpp.runtime.errors import ModelFileError, UsageError, check_known
from sfpp.runtime.options import option

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
    # argparse hands every word behind --backend to it, models too.
    hint = "; models come before --backend" if name.endswith(".onnx") else ""
    more = f", each with an optional precision as in openvino:bf16{hint}"
    check_known("backend", name, (AUTO, *backend_names()), more=more)
    if colon:
        check_known(f"the precision in {text!r}", precision, PRECISIONS)
    return BackendSpec(None if name == AUTO else name, cast(Precision, precision) if colon else None)


def input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read ``1x3x512x512``, or ``NAME:1x3x512x512`` for one input of several; without a name the name is empty.

    Raises:
        UsageError: not sizes from 1 with an x between them.
    """
    name, _, sizes = text.rpartition(":")  # from the right: TensorFlow's names end in ":0"
    parts = sizes.split("x")
    if not all(re.fullmatch(r"0*[1-9][0-9]{0,8}", part) for part in parts):
        raise UsageError(f"{text!r} is not a shape; expected sizes from 1 such as 1x3x512x512, or NAME:1x3x512x512")
    return name, tuple(int(part) for part in parts)


@dataclass(frozen=True)
class BenchSettings:
    """The settings of one run, for ``sfpp-bench`` and for :func:`sfpp.runtime.bench.bench`.

    Paths may be given as text, backends as ``NAME[:PRECISION]`` and shapes as :func:`input_shape` reads them.

    Raises:
        UsageError: no model, or a value that cannot be meant.
        ModelFileError: a model that is not a file.
    """

    models: tuple[Path, ...] = option(
        "ONNX files that sfpp-export wrote, or any others", flags=("models",), nargs="+", metavar="MODEL"
    )
    backends: tuple[BackendSpec, ...] = option(
        "library and precision, such as openvino:bf16 (default: auto, what sfpp-run chooses)",
        default=None,
        flags=("--backend",),
        nargs="+",
        action="extend",
        metavar="SPEC",
    )
    image: Path | None = option(
        "frame for models with a contract (default: one of the shipped clip, resized to each model's input)",
        default=None,
        metavar="FILE",
    )
    runs: int = option(
        "rounds at most, in each of which every model runs once", default=30, type=positive_int, metavar="N"
    )
    warmup: int = option("runs of each model before the first round", default=2, type=int, metavar="N")
    # 30 rounds of three models at 3840x2160 would take ten minutes.
    seconds: float = option(
        "no round begins later than this, but for the first three", default=60.0, type=float, metavar="S"
    )
    threads: int | None = option(
        "threads within an operator (default: all cores)", default=None, type=positive_int, metavar="N"
    )
    input_shapes: Mapping[str, tuple[int, ...]] = option(
        "sizes that a model without a contract leaves open, such as 1x3x512x512; once for each input, with its name "
        "where there are several",
        default=None,
        flags=("--input-shape",),
        action="append",
        metavar="[NAME:]SHAPE",
    )
    profile: bool = option("measure the time of each operator too, in runs of their own", default=False)
    peak: bool = option("measure this machine's best in matrix products and copies, to compare with", default=True)
    memory: bool = option("measure the peak memory of each model, in a process that loads it again", default=True)
    self_test: bool = option(
        "leave out models whose self-test fails, which is replayed on the first use in a backend", default=True
    )
    seed: int = option("seed of the order within rounds and of random values", default=0)

    def __post_init__(self) -> None:
        specs = (backend_spec(each) if isinstance(each, str) else each for each in self.backends or ())
        shapes = self.input_shapes or {}
        if not isinstance(shapes, Mapping):
            shapes = dict(map(input_shape, shapes))
        object.__setattr__(self, "models", tuple(map(Path, self.models)))
        object.__setattr__(self, "backends", tuple(specs) or (BackendSpec(),))
        object.__setattr__(self, "image", None if self.image is None else Path(self.image))
        object.__setattr__(self, "input_shapes", dict(shapes))
        if not self.models:
            raise UsageError("no model is given: give at least one .onnx file")
        # Before anything is opened, which may take minutes.
        for path in self.models:
            if not path.is_file():
                raise ModelFileError(f"{path} is not a file; give the .onnx file that sfpp-export wrote, or another")
        if self.runs < 1 or self.warmup < 0:
            raise UsageError(f"runs is {self.runs} and warmup {self.warmup}, expected at least 1 and 0")
        if not 0 < self.seconds < math.inf:
            raise UsageError(f"seconds is {self.seconds}, expected a number above 0")
