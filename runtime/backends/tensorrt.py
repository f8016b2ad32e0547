"""An engine of TensorRT or TensorRT-RTX as a backend: buffers on the card, one stream, one graph (not run on hardware).

The calls are those of https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api and of cuda-python.
"""

from __future__ import annotations

import contextlib
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
from sfpp.runtime.cache import compiled_models_folder
from sfpp.runtime.contract import METADATA_KEY, read_contract_file
from sfpp.runtime.errors import BackendError, ModelFileError, SfppError
from sfpp.runtime.files import whole_file
from sfpp.runtime.tensorrt.cuda import Cuda, PinnedArray
from sfpp.runtime.tensorrt.library import Library, joined, keeping_logger, library_of
from sfpp.runtime.tensorrt.sidecar import check_engine, sidecar_of


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
        self._library = library_of(record.library if record else library or "tensorrt", purpose=f"running {path.name}")
        self._cuda = Cuda()
        card = self._cuda.card()
        if record is not None:
            check_engine(record, path, self._library, card)
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
        host_code = record is not None and record.version_compatible
        messages: list[str] = []
        self._logger = keeping_logger(self._library.module, messages)  # the library keeps only a pointer to it
        try:
            self._engine = _deserialized(self._library, self._logger, path, messages, host_code=host_code)
            self._context, self._store = _context(self._library, self._engine, path, keep=options.cache)
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
            self._launch()
            self._cuda.synchronize(self._stream)
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
            self._cuda.release(stream=stream, graph=self._graph, device=self._memory, pinned=self._pinned)
            self._graph, self._memory, self._pinned = None, [], []

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
        shape = tuple(int(size) for size in self._engine.get_tensor_shape(name))
        if min(shape, default=1) < 0:
            raise ModelFileError(
                f"the engine's {name!r} has no fixed size {shape}; build it from a model of one size, as sfpp-export "
                "writes it"
            )
        dtype = np.dtype(self._library.module.nptype(self._engine.get_tensor_dtype(name)))
        host = self._cuda.pinned(shape, dtype)
        self._pinned.append(host)
        device = self._cuda.allocate(host.array.nbytes)
        self._memory.append(device)
        return _Tensor(TensorInfo(name, shape, dtype.name), host, device)

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


def _deserialized(library: Library, logger: Any, path: Path, messages: list[str], *, host_code: bool) -> Any:
    runtime = library.module.Runtime(logger)
    if host_code:
        # A version-compatible engine brings a part of the library with it, as code.
        runtime.engine_host_code_allowed = True
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read the engine {path}: {error.strerror or error}") from error
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise BackendError(
            f"{library.title} {library.version} does not load {path.name}: {joined(messages)}; an engine runs only "
            "with the version and the kind of card that it was built with: build it again with sfpp-engine on this "
            "machine"
        )
    return engine


def _context(library: Library, engine: Any, path: Path, *, keep: bool) -> tuple[Any, Callable[[], object] | None]:
    """Return an execution context, and what keeps the kernels that it compiles, if there are any to keep.

    TensorRT's engines hold their kernels already; TensorRT-RTX takes them from a cache, and puts new ones there.

    Raises:
        BackendError: there is not enough memory on the card.
    """
    if not library.is_rtx:
        return _created(library, engine.create_execution_context()), None
    config = engine.create_runtime_config()
    config.cuda_graph_strategy = library.module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    options = {"version": library.version}
    folder = compiled_models_folder(path, library=library.name, options=options) if keep else None
    if folder is None:
        return _created(library, engine.create_execution_context(config)), None
    file, cache = folder / "kernels.bin", config.create_runtime_cache()
    known = file.read_bytes() if file.is_file() else b""
    if known:
        cache.deserialize(known)  # one of another card or driver is refused, and made anew
    config.set_runtime_cache(cache)

    def store() -> None:
        compiled = bytes(cache.serialize())
        # What cannot be written is compiled again next time.
        with contextlib.suppress(SfppError, OSError):
            if compiled != known:
                with whole_file(file) as temporary:
                    temporary.write_bytes(compiled)

    return _created(library, engine.create_execution_context(config)), store


def _created(library: Library, context: Any) -> Any:
    if context is None:
        raise BackendError(
            f"{library.title} has no execution context for this engine, most likely because the card's memory is "
            "full; close other programs on it, or take a smaller input size"
        )
    return context
