"""An engine of TensorRT or TensorRT-RTX as a backend: buffers on the card, one stream, one graph (not run on hardware).

The calls are those of https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api and of cuda-python.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.backends.protocol import (
    DEFAULT_OPTIONS,
    WARNING,
    Arrays,
    BackendOptions,
    Notify,
    TensorInfo,
    check_inputs,
    not_profiled,
    say,
    was_closed,
)
from sfpp.runtime.contract import METADATA_KEY, read_contract_file
from sfpp.runtime.errors import BackendError
from sfpp.runtime.tensorrt.cuda import Cuda, PinnedArray
from sfpp.runtime.tensorrt.library import Library, joined, keeping_logger, library_of
from sfpp.runtime.tensorrt.opening import deserialized, execution_context, tensor_of
from sfpp.runtime.tensorrt.sidecar import check_engine, sidecar_of, warning_of


@dataclass(frozen=True, eq=False)
class _Tensor:
    """An input or output: its memory here, and its address on the card."""

    info: TensorInfo
    host: PinnedArray
    device: int


class TensorRtBackend:
    """An engine, opened on the first card.

    What it takes and gives stands in the .json file beside it. An engine of another tool has none; it runs all the same
    if the contract is given otherwise.

    Args:
        path: the engine.
        options: profile and cache; threads and precision are fixed in the engine. With a profile, layers are launched
            one by one, which is slower; the cache is for what TensorRT-RTX compiles on this card.
        library: ``tensorrt`` or ``tensorrt-rtx``, for an engine that does not say; None is TensorRT.
        notify: called with a warning, besides the logger ``sfpp``.

    Raises:
        MissingDependencyError: TensorRT or cuda-python is not installed.
        ModelFileError, ContractError: the file cannot be read, or what lies beside it is no contract.
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
        self._cuda = Cuda()
        card = self._cuda.card()
        if record is not None:
            check_engine(record, path, self._library, card)
            if differs := warning_of(record, path, card):
                say(WARNING + differs, notify)
        self.description: Final = (
            f"{self._library.title} {self._library.version} on {card.name}, CUDA {self._cuda.driver_version()}"
        )
        self.precision: Final = "fp32" if contract is None else contract.precision  # of the file it was built from
        self._notify = notify
        self._lock = threading.Lock()
        self._stream: int | None = None
        self._graph: Any = None
        # TensorRT-RTX records by itself, and layers are only timed when they are launched one by one.
        self._records = not self._library.is_rtx and not options.profile
        self._warm = False
        self._store: Callable[[], object] | None = None
        self._engine: Any = None
        self._context: Any = None
        self._profile: _Profile | None = None
        self._memory: list[int] = []
        self._pinned: list[PinnedArray] = []
        host_code = options.host_code or (record is not None and record.version_compatible)
        self._messages: list[str] = []
        self._logger = keeping_logger(self._library.module, self._messages)  # the library keeps only a pointer to it
        try:
            self._engine = deserialized(
                self._library,
                self._logger,
                path,
                self._messages,
                host_code=host_code,
                dla=record.dla if record else None,
            )
            self._context, self._store = execution_context(self._library, self._engine, path, keep=options.cache)
            self._profile = _Profile(self._library, self._context) if options.profile else None
            self._stream = self._cuda.stream()
            self._sources, self._results = self._bound()
            self.inputs: Final = tuple(each.info for each in self._sources)
        except BaseException:
            self.close()
            raise

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run once; see :class:`.Backend`."""
        with self._lock:
            if self._stream is None:
                raise was_closed(self.description)
            check_inputs(self.description, inputs, self.inputs)
            for tensor in self._sources:
                np.copyto(tensor.host.array, inputs[tensor.info.name])
            self._messages.clear()
            try:
                self._launch()
                self._cuda.synchronize(self._stream)
            except BackendError as error:
                if not self._messages:
                    raise
                raise BackendError(f"{error}; {self._library.title} says: {joined(self._messages)}") from error
            # Copies, since the next run writes into the same memory.
            return {tensor.info.name: tensor.host.array.copy() for tensor in self._results}

    def operator_times_ms(self) -> dict[str, float]:
        """Return the mean milliseconds by layer; see :class:`.Backend`.

        An engine's layers are fused from many operators and named after them.
        """
        if self._profile is None:
            raise not_profiled(self.description)
        return self._profile.means()

    def close(self) -> None:
        """Free the engine and all its memory."""
        with self._lock:
            stream, self._stream = self._stream, None
            if self._store is not None:
                self._store()
            # In this order: a context must go before its engine, and both before the memory that they use.
            self._context = self._profile = self._store = None
            self._engine = None
            failed = self._cuda.release(stream=stream, graph=self._graph, device=self._memory, pinned=self._pinned)
            self._graph, self._memory, self._pinned = None, [], []
        if failed:
            # No error: there may be one already, of which this is a consequence.
            say(f"{WARNING}not all of {self.description} could be released: {failed}", self._notify)

    def _bound(self) -> tuple[tuple[_Tensor, ...], tuple[_Tensor, ...]]:
        """Give each tensor of the engine memory here and on the card; return inputs and outputs."""
        mode = self._library.module.TensorIOMode
        inputs: list[_Tensor] = []
        outputs: list[_Tensor] = []
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            tensor = self._tensor(name)
            if not self._context.set_tensor_address(name, tensor.device):
                raise BackendError(f"{self.description} does not take the memory of {name!r}; build the engine again")
            (inputs if self._engine.get_tensor_mode(name) == mode.INPUT else outputs).append(tensor)
        return tuple(inputs), tuple(outputs)

    def _tensor(self, name: str) -> _Tensor:
        info = tensor_of(self._library, self._engine, name)
        host = self._cuda.pinned(tuple(size or 0 for size in info.shape), info.dtype)
        self._pinned.append(host)
        device = self._cuda.allocate(host.array.nbytes)
        self._memory.append(device)
        return _Tensor(info, host, device)

    def _launch(self) -> None:
        """Copy in, compute, copy out: launched as one graph from the second run on."""
        assert self._stream is not None
        if self._graph is None and self._warm and self._records:
            self._record()
        if self._graph is not None:
            self._cuda.launch(self._graph, self._stream)
            return
        self._enqueue()
        self._warm = True

    def _record(self) -> None:
        """Record a run as a graph, which spares the CPU hundreds of launches per frame; some engines refuse."""
        assert self._stream is not None
        try:
            # The first run has been: some memory is only taken there, which cannot be recorded.
            self._graph = self._cuda.record(self._stream, self._enqueue)
        except BackendError as error:
            self._records = False
            say(
                f"{WARNING}{self.description} cannot be recorded as a CUDA graph ({error}); its layers are launched "
                "one by one",
                self._notify,
            )

    def _enqueue(self) -> None:
        assert self._stream is not None
        for tensor in self._sources:
            self._cuda.to_card(tensor.device, tensor.host, self._stream)
        if not self._context.execute_async_v3(self._stream):
            raise BackendError(f"{self.description} failed to run the engine; build it again on this machine")
        for tensor in self._results:
            self._cuda.from_card(tensor.host, tensor.device, self._stream)


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
