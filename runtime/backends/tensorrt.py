"""An engine of TensorRT or TensorRT-RTX as a backend: memory that it lends, one stream, graphs (not run on hardware).

The calls are those of https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api and of cuda-python.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.backends.lending import Held, Loan, Pool, held_by
from sfpp.runtime.backends.protocol import (
    DEFAULT_OPTIONS,
    WARNING,
    Arrays,
    BackendOptions,
    Notify,
    Schedule,
    TensorInfo,
    check_inputs,
    not_profiled,
    say,
    was_closed,
)
from sfpp.runtime.contract import METADATA_KEY, EngineRecord, read_contract_file
from sfpp.runtime.errors import BackendError
from sfpp.runtime.tensorrt.cuda import Cuda, PinnedArray
from sfpp.runtime.tensorrt.device_arrays import device_array
from sfpp.runtime.tensorrt.library import Library, joined, keeping_logger, library_of
from sfpp.runtime.tensorrt.opening import deserialized, execution_context, tensor_of
from sfpp.runtime.tensorrt.sidecar import check_engine, sidecar_of, warning_of


@dataclass(frozen=True, eq=False)
class _Tensor:
    """An input or output: an array here, and the address by which the card works on it."""

    info: TensorInfo
    host: PinnedArray
    device: int


@dataclass(eq=False)
class _Memory:
    """Where a run reads and writes, and the graph that was recorded with it; ``results`` are what its last one gave."""

    inputs: tuple[_Tensor, ...]
    outputs: tuple[_Tensor, ...]
    graph: Any = None
    results: tuple[weakref.ref[Held], ...] = ()

    @property
    def pinned(self) -> list[PinnedArray]:
        """All that is to be freed."""
        return [each.host for each in (*self.inputs, *self.outputs)]

    @property
    def is_read(self) -> bool:
        """Whether somebody still has the last run's outputs."""
        return any(each() is not None for each in self.results)


class TensorRtBackend:
    """An engine, opened on the first card.

    What it takes and gives stands in the .json file beside it. An engine of another tool has none; it runs all the same
    if the contract is given otherwise.

    A frame is made in memory that is lent (:class:`.Lends`), copied to the card once, and its outputs back once; where
    the card works in the processor's memory nothing is copied at all. An input may also lie on the card already: an
    object with ``__dlpack__`` or ``__cuda_array_interface__`` in the place of an array is read where it is.

    Args:
        path: the engine.
        options: profile, cache, host_code, schedule, zero_copy; threads and precision are fixed in the engine. With a
            profile, layers are launched one by one, which is slower; the cache is for what TensorRT-RTX compiles on
            this card.
        library: ``tensorrt`` or ``tensorrt-rtx``, for an engine that does not say; None is TensorRT.
        notify: called with a warning, besides the logger ``sfpp``.

    Raises:
        MissingDependencyError: TensorRT or cuda-python is not installed.
        ModelFileError, ContractError: the file cannot be read, or holds what is no array, or what lies beside it is no
            contract.
        UsageError: an engine for an accelerator that is not there.
        BackendError: there is no card, or the engine was built for another one, or another version.
    """

    def __init__(
        self,
        path: Path,
        options: BackendOptions = DEFAULT_OPTIONS,
        *,
        library: str | None = None,
        notify: Notify | None = None,
    ) -> None:
        sidecar = sidecar_of(path)
        contract = read_contract_file(sidecar) if sidecar.is_file() else None
        self.metadata: Final[Mapping[str, str]] = {} if contract is None else {METADATA_KEY: contract.to_json()}
        record = None if contract is None else contract.engine
        purpose = f"running {path.name}"
        self._library = library_of(record.library if record else library or "tensorrt", purpose=purpose, or_lean=True)
        self._cuda, self._notify = Cuda(), notify
        self._wait_by(options.schedule)
        card = self._cuda.card()
        if record is not None:
            check_engine(record, path, self._library, card)
            if differs := warning_of(record, path, card):
                say(WARNING + differs, notify)
        self.description: Final = (
            f"{self._library.title} {self._library.version} on {card.name}, CUDA {self._cuda.driver_version()}"
        )
        self.precision: Final = "fp32" if contract is None else contract.precision  # of the file it was built from
        self._lock = threading.Lock()
        self._stream: int | None = None
        # TensorRT-RTX records by itself, and layers are only timed when they are launched one by one.
        self._records = not self._library.is_rtx and not options.profile
        self._warm = False
        self._copies = not (card.shares_memory and options.zero_copy)
        self._store: Callable[[], object] | None = None
        self._engine: Any = None
        self._context: Any = None
        self._profile: _Profile | None = None
        self._on_card: dict[str, int] = {}
        self._recorded: list[Any] = []
        self._pool = Pool(self._memory, lambda memory: self._cuda.release(pinned=memory.pinned))
        self._own: Loan[_Memory] | None = None
        self._messages: list[str] = []
        self._logger = keeping_logger(self._library.module, self._messages)  # the library keeps only a pointer to it
        try:
            self._engine = self._deserialized(path, record, host_code=options.host_code)
            self._context, self._store = execution_context(self._library, self._engine, path, keep=options.cache)
            self._profile = _Profile(self._library, self._context) if options.profile else None
            self._stream = self._cuda.stream()
            self.inputs: Final = self._tensors("INPUT")
            self._outputs = self._tensors("OUTPUT")
            if self._copies:
                for each in (*self.inputs, *self._outputs):
                    self._on_card[each.name] = self._cuda.allocate(_bytes_of(each))
            if not options.profile:
                self._warm_up()
        except BaseException:
            self.close()
            raise

    def lend(self, tensor: TensorInfo) -> NDArray[Any] | None:
        """Lend memory for the only input; see :class:`.Lends`."""
        if self.inputs != (tensor,) or (loan := self._pool.lend()) is None:
            return None
        return loan.array(loan.piece.inputs[0].host.array)

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run once; see :class:`.Backend`."""
        with self._lock:
            if self._stream is None:
                raise was_closed(self.description)
            on_card = {
                name: found
                for name, values in inputs.items()
                if (found := device_array(values, name, self._cuda, self._stream)) is not None
            }
            check_inputs(self.description, {**inputs, **on_card}, self.inputs)  # type: ignore[dict-item]  # alike enough
            loan = self._loan_of(inputs, on_card)
            self._compute(loan.piece, {name: found.address for name, found in on_card.items()})
            return self._results_in(loan)

    def operator_times_ms(self) -> dict[str, float]:
        """Return the mean milliseconds by layer; see :class:`.Backend`.

        An engine's layers are fused from many operators and named after them.
        """
        if self._profile is None:
            raise not_profiled(self.description)
        return self._profile.means()

    def close(self) -> None:
        """Free the engine and all its memory; what is still lent is freed with the last array over it."""
        with self._lock:
            stream, self._stream = self._stream, None
            self._pool.end()
            if self._store is not None:
                self._store()
            # In this order: a context must go before its engine, and both before the memory that they use.
            self._context = self._profile = self._store = None
            self._engine = None
            failed = self._cuda.release(stream=stream, graphs=self._recorded, device=list(self._on_card.values()))
            self._recorded, self._on_card = [], {}
            self._own = None
            self._pool.close()
        if failed:
            # No error: there may be one already, of which this is a consequence.
            say(f"{WARNING}not all of {self.description} could be released: {failed}", self._notify)

    def _wait_by(self, schedule: Schedule | None) -> None:
        if schedule is None:
            return
        try:
            self._cuda.wait_by(schedule)
        except BackendError as error:
            say(f"{WARNING}the card is waited for as before, not by {schedule}: {error}", self._notify)

    def _deserialized(self, path: Path, record: EngineRecord | None, *, host_code: bool) -> Any:
        code = host_code or (record is not None and record.version_compatible)
        dla = None if record is None else record.dla
        return deserialized(self._library, self._logger, path, self._messages, host_code=code, dla=dla)

    def _tensors(self, mode: str) -> tuple[TensorInfo, ...]:
        wanted = getattr(self._library.module.TensorIOMode, mode)
        names = map(self._engine.get_tensor_name, range(self._engine.num_io_tensors))
        return tuple(
            tensor_of(self._library, self._engine, name)
            for name in names
            if self._engine.get_tensor_mode(name) == wanted
        )

    def _memory(self) -> _Memory:
        """Take memory for a run."""
        taken: list[PinnedArray] = []

        def tensor(info: TensorInfo) -> _Tensor:
            taken.append(self._cuda.pinned(_shape_of(info), info.dtype, mapped=not self._copies))
            device = self._on_card[info.name] if self._copies else self._cuda.address_on_card(taken[-1])
            return _Tensor(info, taken[-1], device)

        try:
            return _Memory(tuple(map(tensor, self.inputs)), tuple(map(tensor, self._outputs)))
        except BaseException:
            self._cuda.release(pinned=taken)
            raise

    def _warm_up(self) -> None:
        """Run twice on nothing, or the first two frames would wait: for memory, and for the recording of a graph."""
        loan = self._pool.lend()
        assert loan is not None, "the pool is new"
        for each in loan.piece.inputs:
            each.host.array.fill(0)
        for _ in range(2):
            self._compute(loan.piece, {})

    def _loan_of(self, inputs: Arrays, on_card: Mapping[str, object]) -> Loan[_Memory]:
        """Return the memory that the input was made in, or else other memory, with the inputs copied into it."""
        if not on_card and len(inputs) == 1:
            (values,) = inputs.values()
            held = held_by(values)
            if held is not None and held.loan.pool is self._pool and not held.loan.piece.is_read:
                lent = held.loan.piece.inputs[0].host
                if values.__array_interface__["data"][0] == lent.address and values.flags.c_contiguous:
                    return held.loan
        loan = self._pool.lend()
        if loan is None:
            loan = self._own = self._own or Loan(self._pool, self._memory())
        for each in loan.piece.inputs:
            if each.info.name not in on_card:
                np.copyto(each.host.array, inputs[each.info.name])
        return loan

    def _results_in(self, loan: Loan[_Memory]) -> dict[str, NDArray[Any]]:
        memory = loan.piece
        if loan is self._own:
            # Copies, since the next run writes into the same memory.
            return {each.info.name: each.host.array.copy() for each in memory.outputs}
        results = {each.info.name: loan.array(each.host.array) for each in memory.outputs}
        held = map(held_by, results.values())
        memory.results = tuple(weakref.ref(each) for each in held if each is not None)
        return results

    def _compute(self, memory: _Memory, at: Mapping[str, int]) -> None:
        """Run, and wait until it is done; ``at`` has the addresses of inputs that lie on the card already."""
        assert self._stream is not None
        self._messages.clear()
        try:
            if memory.graph is None and self._records and self._warm and not at:
                self._record(memory)
            if memory.graph is None or at:
                self._enqueue(memory, at)
            else:
                self._cuda.launch(memory.graph, self._stream)
            self._cuda.synchronize(self._stream)
        except BackendError as error:
            if not self._messages:
                raise
            raise BackendError(f"{error}; {self._library.title} says: {joined(self._messages)}") from error
        self._warm = True

    def _record(self, memory: _Memory) -> None:
        """Record a run as a graph, which spares the CPU hundreds of launches per frame; some engines refuse."""
        assert self._stream is not None
        try:
            # The first run has been: some memory is only taken there, which cannot be recorded.
            memory.graph = self._cuda.record(self._stream, lambda: self._enqueue(memory, {}))
            self._recorded.append(memory.graph)
        except BackendError as error:
            self._records = False
            say(
                f"{WARNING}{self.description} cannot be recorded as a CUDA graph ({error}); its layers are launched "
                "one by one",
                self._notify,
            )

    def _enqueue(self, memory: _Memory, at: Mapping[str, int]) -> None:
        assert self._stream is not None
        for each in (*memory.inputs, *memory.outputs):
            if not self._context.set_tensor_address(each.info.name, at.get(each.info.name, each.device)):
                raise BackendError(
                    f"{self.description} does not take the memory of {each.info.name!r}; build the engine again"
                )
        for each in memory.inputs:
            if self._copies and each.info.name not in at:
                self._cuda.to_card(each.device, each.host, self._stream)
        if not self._context.execute_async_v3(self._stream):
            raise BackendError(f"{self.description} failed to run the engine; build it again on this machine")
        for each in memory.outputs:
            if self._copies:
                self._cuda.from_card(each.host, each.device, self._stream)


def _shape_of(info: TensorInfo) -> tuple[int, ...]:
    return tuple(size or 0 for size in info.shape)  # of an engine all are fixed


def _bytes_of(info: TensorInfo) -> int:
    return math.prod(_shape_of(info)) * np.dtype(info.dtype).itemsize


class _Profile:
    """Milliseconds by layer, as the library reports them after each run."""

    def __init__(self, library: Library, context: Any) -> None:
        times: defaultdict[str, list[float]] = defaultdict(list)

        class Profiler(library.module.IProfiler):  # type: ignore[misc, name-defined]  # the library has no types
            def __init__(self) -> None:
                library.module.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                times[layer_name].append(ms)

        self._times = times
        self._profiler = context.profiler = Profiler()

    def means(self) -> dict[str, float]:
        """Return the mean of each layer, the largest first."""
        means = {name: sum(each) / len(each) for name, each in self._times.items()}
        return dict(sorted(means.items(), key=lambda item: -item[1]))
