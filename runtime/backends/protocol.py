"""What the runtime asks of an inference library: run named arrays, say what it takes and how long it took, close."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from numpy.typing import NDArray

from sfpp.runtime.errors import BackendError, UsageError, check_known

Arrays = Mapping[str, NDArray[Any]]
Notify = Callable[[str], object]
Precision = Literal["fp32", "bf16", "fp16"]
Schedule = Literal["spin", "blocking"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
_LOGGER = logging.getLogger("sfpp")
WARNING = "warning: "
PRECISION_WORDS: dict[str, str] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True)
class TensorInfo:
    """An input as the model declares it: ``dtype`` is numpy's name, a size that may vary is None."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    @property
    def size(self) -> str:
        """The shape as text, such as ``1x3x?x?``."""
        return "x".join("?" if size is None else str(size) for size in self.shape)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape can be given."""
        return len(shape) == len(self.shape) and all(map(lambda size, want: want in (None, size), shape, self.shape))


@dataclass(frozen=True)
class BackendOptions:
    """How a model is opened, whatever the library.

    Args:
        threads: threads within an operator; None leaves the choice to the library (as a rule one per physical core),
            within the cores that a container allows.
        precision: what is computed in; None computes as the CPU does it best, or as the graph says. Inputs and outputs
            keep their types.
        profile: measure each operator, for :meth:`Backend.operator_times_ms`; slows every run a little.
        cache: keep compiled models in the user's cache folder, where the library compiles; a folder that cannot be
            written to is no error.
        build: let TensorRT build an engine of an ONNX file, which takes minutes; otherwise one must be there.
        host_code: let an engine of TensorRT that has no contract beside it bring code along, as version-compatible ones
            do; it runs in this process, so only of a file that is trusted.
        schedule: how TensorRT waits for the card: "spin" looks all the time, which is soonest and takes a core;
            "blocking" sleeps, which leaves the core to others; None leaves the choice to CUDA. The first model of a
            process decides.
        zero_copy: let TensorRT work in the processor's memory where the card has none of its own, as on a Jetson;
            otherwise inputs and outputs are copied there, too, which is for comparison.
        arena: keep the memory of a run for the next one, where the library can do without: a single run takes less
            without it, and several take longer.

    Raises:
        UsageError: fewer than one thread, or a precision that no backend knows.
    """

    threads: int | None = None
    precision: Precision | None = None
    profile: bool = False
    cache: bool = True
    build: bool = True
    arena: bool = True
    host_code: bool = False
    schedule: Schedule | None = None
    zero_copy: bool = True

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads is {self.threads}, expected at least 1, or None for the backend's own choice")
        if self.precision is not None:
            check_known("precision", self.precision, PRECISIONS, more=", or None for what suits the machine")
        if self.schedule is not None:
            check_known("schedule", self.schedule, SCHEDULES, more=", or None for CUDA's own choice")


DEFAULT_OPTIONS = BackendOptions()


class Backend(Protocol):
    """An opened model."""

    @property
    def description(self) -> str:
        """Library, version and device, for people."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Key-value pairs stored in the model file, or beside an engine; the contract is among them."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What :meth:`run` takes."""

    @property
    def precision(self) -> str:
        """What is computed in: one of :data:`PRECISIONS`, as far as the library tells."""

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run the model once: arrays by input name in, arrays by output name out.

        The results belong to the caller: later runs leave them alone.

        Raises:
            BackendError: a name, shape or type that the model does not take, or a failure in the library.
        """

    def operator_times_ms(self) -> dict[str, float]:
        """Return the mean milliseconds per run by type of operator, summed over its nodes, the largest first.

        The mean is over all runs since opening. To be called once, after the last run: some libraries end their
        measuring with it. Before any run it is empty.

        Raises:
            UsageError: the model was opened without ``profile=True``.
            BackendError: the model was closed.
        """

    def close(self) -> None:
        """Release the model and its memory; running it afterwards is an error, closing it twice is not."""


@runtime_checkable
class Lends(Protocol):
    """A backend that lends memory to make an input in: what lies in it when it runs need not be copied."""

    def lend(self, tensor: TensorInfo) -> NDArray[Any] | None:
        """Lend memory for an input; any thread may ask.

        It is nobody else's until no array over it is left; what is in it before is arbitrary. The outputs of a run with
        it lie in memory that is lent with it.

        Args:
            tensor: name, shape and type of the input.

        Returns:
            An array of that shape and type; None where there is none to lend, and any other array does as well.
        """


@dataclass(frozen=True)
class FunctionBackend:
    """A plain function in place of a library: for tests, and for models that are not files."""

    function: Callable[[Arrays], dict[str, NDArray[Any]]]
    metadata: Mapping[str, str]
    description: str = "python function"
    inputs: tuple[TensorInfo, ...] = ()
    precision: str = "fp32"

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Call the function."""
        return self.function(inputs)

    def operator_times_ms(self) -> dict[str, float]:
        """Refuse: a function has no operators.

        Raises:
            UsageError: always.
        """
        raise not_profiled(self.description)

    def close(self) -> None:
        """Nothing to release."""


def say(line: str, notify: Notify | None) -> None:
    """Write a line, a warning if it begins so, to the logger ``sfpp``, and to whoever wants to be called with it."""
    level = logging.WARNING if line.startswith(WARNING) else logging.INFO
    _LOGGER.log(level, line, extra={"notified": notify is not None})
    if notify is not None:
        notify(line)


def check_inputs(description: str, inputs: Arrays, expected: tuple[TensorInfo, ...]) -> None:
    """Refuse what a library might take in silence: another type or size, a name too many, or one that is missing.

    Raises:
        BackendError: there is such an input.
    """
    known = {info.name: info for info in expected}
    if inputs.keys() != known.keys() or not all(
        known[name].dtype == values.dtype.name and known[name].fits(values.shape) for name, values in inputs.items()
    ):
        given = (TensorInfo(name, values.shape, values.dtype.name) for name, values in inputs.items())
        raise BackendError(f"{description} failed: given the inputs {_listed(given)}, expected {_listed(expected)}")


def _listed(tensors: Iterable[TensorInfo]) -> str:
    return ", ".join(f"{each.name!r} ({each.dtype}, {each.size})" for each in tensors) or "nothing"


def not_profiled(description: str) -> UsageError:
    """Return the refusal of :meth:`Backend.operator_times_ms` without a profile."""
    return UsageError(f"{description} did not measure its operators: open the model with BackendOptions(profile=True)")


def was_closed(description: str, *, advice: str = "load it again to run it") -> BackendError:
    """Return the refusal of a model that was closed."""
    return BackendError(f"{description}: the model was closed; {advice}")
