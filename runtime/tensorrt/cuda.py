"""What an engine needs of CUDA: the card, memory on it, pinned memory here, a stream, and graphs of launches.

Over NVIDIA's own bindings (https://nvidia.github.io/cuda-python), whose functions return an error code first.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sfpp.runtime.errors import BackendError, MissingDependencyError

if TYPE_CHECKING:
    from sfpp.runtime.backends.protocol import Schedule

# By the version of cuda-python: from 12.6.1, and before; 13 has the first alone.
_MODULES = ("cuda.bindings.runtime", "cuda.cudart")
_OUT_OF_MEMORY = 2
_ON_CARD = (2, 3)  # cudaMemoryTypeDevice, cudaMemoryTypeManaged
_SCHEDULES: dict[Schedule, str] = {"spin": "cudaDeviceScheduleSpin", "blocking": "cudaDeviceScheduleBlockingSync"}
_ADVICE = "pip install cuda-python, of the same major version as the CUDA of this machine's driver"


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
        name: such as ``NVIDIA GeForce RTX 4090``.
        capability: its compute capability, such as ``sm89``.
        multiprocessors: how many are on, of which a Jetson's power mode decides.
        shares_memory: it has none of its own, but works in the processor's, as on a Jetson.
    """

    name: str
    capability: str
    multiprocessors: int = 0
    shares_memory: bool = False


def import_cuda() -> Any:
    """Import the bindings.

    Raises:
        MissingDependencyError: they are not installed.
    """
    for name in _MODULES:
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise MissingDependencyError("cuda-python", extra="rtx", purpose="running an engine", advice=_ADVICE)


def card_of_this_machine() -> Card | None:
    """Return the first card; None where there is none, or no driver for it, or cuda-python is not installed."""
    try:
        cuda = Cuda()
        return cuda.card() if cuda.count() else None
    except (BackendError, MissingDependencyError):
        return None


class Cuda:
    """CUDA's runtime on the first card, its error codes as exceptions, its handles as plain numbers.

    Raises:
        MissingDependencyError: cuda-python is not installed.
    """

    def __init__(self) -> None:
        self._api = import_cuda()

    def wait_by(self, schedule: Schedule) -> None:
        """Say how threads wait for the card; to be called before anything works on it.

        Raises:
            BackendError: something does already, and this CUDA does not change it any more.
        """
        self._call("cudaSetDeviceFlags", getattr(self._api, _SCHEDULES[schedule]))

    def count(self) -> int:
        """Return how many cards there are.

        Raises:
            BackendError: there is no driver, or it is too old.
        """
        return int(self._call("cudaGetDeviceCount"))

    def driver_version(self) -> str:
        """Return the CUDA version that the driver is made for, such as ``12.6``."""
        number = int(self._call("cudaDriverGetVersion"))
        return f"{number // 1000}.{number % 1000 // 10}"

    def card(self) -> Card:
        """Return the first card."""
        properties = self._call("cudaGetDeviceProperties", 0)
        name = properties.name
        text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
        return Card(
            text.rstrip("\0"),
            f"sm{properties.major}{properties.minor}",
            int(properties.multiProcessorCount),
            bool(properties.integrated and properties.canMapHostMemory),
        )

    def stream(self) -> int:
        """Make a stream that does not wait for the default one."""
        return int(self._call("cudaStreamCreateWithFlags", self._api.cudaStreamNonBlocking))

    def synchronize(self, stream: int) -> None:
        """Wait for all that was put into a stream."""
        self._call("cudaStreamSynchronize", stream)

    def allocate(self, size: int) -> int:
        """Return the address of so many bytes on the card."""
        return int(self._call("cudaMalloc", size))

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike, *, mapped: bool = False) -> PinnedArray:
        """Return an array in memory that the card copies from and to without the processor's help.

        Where it is ``mapped``, the card can work in it, too; see :meth:`address_on_card`.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        flags = self._api.cudaHostAllocMapped if mapped else self._api.cudaHostAllocDefault
        address = int(self._call("cudaHostAlloc", size, flags))
        # The array is a view: whoever frees the memory must let go of it first.
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        return PinnedArray(memory.view(dtype).reshape(shape), address)

    def address_on_card(self, mapped: PinnedArray) -> int:
        """Return the address by which the card knows a mapped array."""
        return int(self._call("cudaHostGetDevicePointer", mapped.address, 0))

    def is_on_card(self, address: int) -> bool:
        """Return whether an address is one of memory on the first card."""
        about = self._call("cudaPointerGetAttributes", address)
        return int(about.type) in _ON_CARD and int(about.device) == 0

    def to_card(self, target: int, source: PinnedArray, stream: int) -> None:
        """Copy to the card, in a stream."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", target, source.address, source.array.nbytes, kind, stream)

    def from_card(self, target: PinnedArray, source: int, stream: int) -> None:
        """Copy from the card, in a stream."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", target.address, source, target.array.nbytes, kind, stream)

    def record(self, stream: int, launch: Callable[[], None]) -> Any:
        """Return a graph of all that ``launch`` puts into a stream, to be launched as one."""
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)
        try:
            launch()
        except BaseException:
            # A capture must be ended; what that says of a failed one follows from the failure.
            with contextlib.suppress(BackendError):
                self._call("cudaGraphDestroy", self._call("cudaStreamEndCapture", stream))
            raise
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            recorded = self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)
        self._call("cudaGraphUpload", recorded, stream)  # or the first launch would
        return recorded

    def launch(self, graph: Any, stream: int) -> None:
        """Launch a recorded graph."""
        self._call("cudaGraphLaunch", graph, stream)

    def release(
        self,
        *,
        stream: int | None = None,
        graphs: Sequence[Any] = (),
        device: Sequence[int] = (),
        pinned: Sequence[PinnedArray] = (),
    ) -> str:
        """Free what was made here; a stream first, so that nothing works on freed memory.

        All of it is tried, since after a fault in a kernel every call gives that one's error.

        Returns:
            What failed first; empty where nothing did.
        """
        calls = [("cudaGraphExecDestroy", graph) for graph in graphs]
        calls += [("cudaStreamDestroy", stream)]
        calls += [("cudaFree", address) for address in device]
        calls += [("cudaFreeHost", each.address) for each in pinned]
        failures = (self._failure(name, handle) for name, handle in calls if handle is not None)
        return next(iter([each for each in failures if each]), "")

    def _failure(self, name: str, handle: Any) -> str:
        try:
            self._call(name, handle)
        except BackendError as error:
            return str(error)
        return ""

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the runtime and return what it gives beside the error code."""
        code, *results = getattr(self._api, name)(*arguments)
        if int(code):
            raise BackendError(f"CUDA's {name} failed: {self._reason(code)}{_remedy(int(code))}")
        return results[0] if results else None

    def _reason(self, code: Any) -> str:
        _, text = self._api.cudaGetErrorString(code)
        return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


@dataclass(frozen=True, eq=False)
class PinnedArray:
    """An array in pinned memory, and the address here by which it is copied and freed."""

    array: NDArray[Any]
    address: int


def _remedy(code: int) -> str:
    if code == _OUT_OF_MEMORY:
        return "; close other programs on this card, or take a smaller model or input size"
    return "; check the driver with nvidia-smi (on a Jetson: tegrastats)"
