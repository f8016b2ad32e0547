"""What a pipeline asks of a model and of its results, and what models of every task have in common once opened."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Protocol, TypeVar

from numpy.typing import NDArray

from sfpp.runtime.backends.protocol import Arrays, Backend, Lends, TensorInfo
from sfpp.runtime.contract import ModelContract, OutputSpec
from sfpp.runtime.errors import ModelFileError
from sfpp.runtime.images import Image

if TYPE_CHECKING:
    from typing_extensions import Self

    from sfpp.runtime.motion.options import Motion
    from sfpp.runtime.video.frame import Frame, Source


class Step(NamedTuple):
    """A named step from frames to results.

    Attributes:
        name: for the times that it takes.
        work: is given the frames and what the step before made of them (the first one None), and returns what the next
            one is given; the last one returns pairs of a frame and its result, in order. It may hold frames back, and
            give them later. A step that returns None had nothing to do: what it was given goes on, and its time does
            not count.
        rest: of the last step: returns the pairs that it still holds, once no frame comes any more.
        room: for how many frames the step before need not wait while this one is busy.
    """

    name: str
    work: Callable[[Sequence[Frame], Any], Any]
    rest: Callable[[], Sequence[tuple[Frame, Any]]] = list
    room: int = 1


class Result(Protocol):
    """What a model found in a frame; it draws and records itself."""

    def draw(self, frame_bgr: NDArray[Any], **style: Any) -> Image:
        """Return the frame, (H, W, 3) uint8 BGR, with what was found drawn over it."""

    def to_record(self) -> dict[str, Any]:
        """Return what was found by name, of values that JSON has."""


class Model(Protocol):
    """What a pipeline runs: steps from frames to a result for each of them."""

    @property
    def batch(self) -> int:
        """How many frames the steps take at a time, at most."""

    @property
    def in_order(self) -> bool:
        """Whether a frame needs the last one's result: the steps then share a thread, and else each has its own."""

    def steps(self, *, motion: Motion | None = None, ahead: Collection[str] = ()) -> Sequence[Step]:
        """Return the steps of one run, with a state of their own if they need any.

        Args:
            motion: which frames the network sees, and how steady results are; None is each, by itself.
            ahead: names of the sources whose frames may wait for later ones.

        Raises:
            UsageError: the model cannot do that.
        """


def streamed(
    model: Model, sources: Sequence[Source | str | os.PathLike[str]], **options: Any
) -> Iterator[tuple[Frame, Any]]:
    """Return what yields the frames of sources with a model's results; nothing is opened before it is iterated.

    Args:
        model: what is run.
        sources: opened, or what :func:`sfpp.runtime.video.open_source` takes.
        options: of :class:`sfpp.runtime.video.Pipeline`.

    Raises:
        TypeError: an option that there is not.
    """
    from sfpp.runtime.video.pipeline import Pipeline  # only who streams needs threads and video libraries

    inspect.signature(Pipeline).bind(model, sources, **options)  # an option of no such name is refused at once

    def answers() -> Iterator[tuple[Frame, Any]]:
        with Pipeline(model, sources, **options) as pipeline:
            for answer in pipeline:
                yield answer.frame, answer.result

    return answers()


ResultT = TypeVar("ResultT", covariant=True)


@dataclass(frozen=True)
class SelfTestState:
    """Whether a model is known to answer here as it did when it was exported.

    Attributes:
        outcome: ``passed``, now or earlier with the same file, library, precision, processor and card; ``failed``;
            ``damaged``, so that it could not be replayed; ``not carried`` by the file; ``off``: nobody asked.
        agreement: the share, 0..1, of labels or keypoints that are as expected; None where it was not replayed now.
        detail: a sentence about it; empty where there is nothing to add.
    """

    outcome: Literal["passed", "failed", "damaged", "not carried", "off"]
    agreement: float | None = None
    detail: str = ""

    def __str__(self) -> str:
        """The outcome, of a failure with the agreement: ``failed (51.97%)``."""
        shown = self.outcome == "failed" and self.agreement is not None
        return f"{self.outcome} ({self.agreement:.2%})" if shown else self.outcome


class OpenedModel(Generic[ResultT]):
    """A backend and the contract of the model in it; a context manager that closes the backend.

    Args:
        backend: the opened model.
        contract: what it takes and gives.
        output: the output that answers are made of.

    Attributes:
        contract, output: the same.
        self_test: how the self-test came out when the model was loaded.
    """

    def __init__(self, backend: Backend, contract: ModelContract, output: OutputSpec) -> None:
        self.contract = contract
        self.output = output
        self.self_test = SelfTestState("off")
        self._backend = backend

    @property
    def library(self) -> str:
        """Library, version and device that run it, in a few words for people."""
        return self._backend.description

    @property
    def precision(self) -> str:
        """What the library computes in, as far as it tells: ``fp32``, ``bf16``, ``fp16`` or ``int8``."""
        return self._backend.precision

    @property
    def batch(self) -> int:
        """How many frames :meth:`steps` takes at a time, at most."""
        return 1

    @property
    def in_order(self) -> bool:
        """Whether a frame needs the last one's result."""
        return False

    def steps(self, *, motion: Motion | None = None, ahead: Collection[str] = ()) -> Sequence[Step]:
        """Return the steps of one run; see :class:`Model`."""
        raise NotImplementedError

    @property
    def description(self) -> str:
        """The model and the library that runs it, in one line for people."""
        raise NotImplementedError

    def __call__(self, *frame: Any, **options: Any) -> ResultT:
        """Return what the model finds in a frame, (H, W, 3) uint8 BGR of any size."""
        raise NotImplementedError

    def stream(self, *sources: Source | str | os.PathLike[str], **options: Any) -> Iterator[tuple[Frame, ResultT]]:
        """Yield the frames of sources with their results, until they end or the loop is left.

            for frame, result in model.stream("rtsp://camera/street", policy="freshest"):
                ...

        Args:
            sources: files, folders, cameras, streams; see :func:`sfpp.runtime.video.open_source`. Several take turns.
            options: ``policy``, ``key_every``, ``smooth`` and all others of :class:`sfpp.runtime.video.Pipeline`.

        Raises:
            UsageError, MediaError: as for :class:`sfpp.runtime.video.Pipeline`.
            BackendError, ModelFileError: as for one frame.
        """
        return streamed(self, sources, **options)

    def named_output(self, outputs: Arrays) -> NDArray[Any]:
        """Return the output that the contract names.

        Raises:
            ModelFileError: there is none of that name.
        """
        if self.output.name not in outputs:
            raise ModelFileError(
                f"the contract promises the output {self.output.name!r}, but the model gives "
                f"{', '.join(outputs) or 'nothing'}; export the model again, or give a contract that fits it"
            )
        return outputs[self.output.name]

    def lent_input(self, frames: int) -> NDArray[Any] | None:
        """Return memory of the backend's to make an input of so many frames in; None where any other does as well."""
        if not isinstance(self._backend, Lends):
            return None
        spec = self.contract.input
        return self._backend.lend(TensorInfo(spec.name, (spec.rows(frames), *spec.shape[1:]), spec.dtype))

    def close(self) -> None:
        """Release the model."""
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def cells_hw(self) -> tuple[int, int]:
        """The rows and columns of the output, as the contract has them."""
        rows, columns = (-(-side // self.output.stride) for side in self.contract.input.size_hw)
        return rows, columns

    def _size_fits(self, shape: tuple[int, ...]) -> bool:
        # A graph that halves its input before the network rounds twice and may come out one cell short.
        expected = self.cells_hw
        return len(shape) == 2 and all(want - 1 <= have <= want for have, want in zip(shape, expected, strict=True))

    def _misfit(self, values: NDArray[Any], expected: str) -> ModelFileError:
        """Return the error for an output that is not what the contract promises."""
        shape = "x".join(map(str, values.shape))
        return ModelFileError(
            f"the output {self.output.name!r} is {shape} {values.dtype}, expected {expected}; "
            "the contract does not belong to this model: export it again, or give a contract that fits it"
        )
