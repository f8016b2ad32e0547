"""CUDA's runtime as its documentation describes it, without a card.

What is put into a stream happens when the stream is synchronized and not before, so whoever reads too early reads
garbage. Memory is real; a copy from or to anything that was not allocated, or beyond its end, fails. What was called is
kept in ``CALLS``; the function named in ``FAILING`` fails with that code.
"""

import ctypes
import enum
import os
from types import SimpleNamespace

import numpy as np

CALLS = []
FAILING = {}
DEVICE, PINNED, MAPPED, STREAMS, GRAPHS = {}, {}, {}, {}, {}
_ON_CARD = 1 << 60  # between the addresses of mapped memory here and on the card, so that none stands for the other
cudaStreamNonBlocking = 1
cudaHostAllocDefault = 0
cudaHostAllocMapped = 2
cudaDeviceScheduleSpin = 1
cudaDeviceScheduleBlockingSync = 4


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorNoDevice = 100
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureUnsupported = 900


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class cudaMemoryType(enum.IntEnum):
    cudaMemoryTypeUnregistered = 0
    cudaMemoryTypeDevice = 2


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


def _function(function):
    """Keep the call, and fail if that was asked for."""

    def called(*arguments):
        CALLS.append((function.__name__, *arguments))
        code = FAILING.get(function.__name__, FAILING.get("all"))
        if code is not None:
            return (cudaError_t(code), None)
        result = function(*arguments)
        return (cudaError_t.cudaSuccess,) if result is None else (cudaError_t.cudaSuccess, result)

    called.__name__ = function.__name__
    called.parameters = function.__code__.co_varnames[: function.__code__.co_argcount]
    return called


class _Stream:
    def __init__(self):
        self.pending = []
        self.capturing = None

    def put(self, operation):
        (self.pending if self.capturing is None else self.capturing).append(operation)


def enqueue(stream, operation):
    """For the fake TensorRT: put work into a stream."""
    CALLS.append(("enqueue", stream))
    STREAMS[stream].put(operation)


def on_card(address):
    """For the fake TensorRT: the memory that the card has at an address, or sees there; None for any other."""
    return DEVICE.get(address, MAPPED.get(address))


def device_array(address, shape, dtype):
    """For the fake TensorRT: what lies on the card at an address."""
    return on_card(address)[: int(np.prod(shape)) * np.dtype(dtype).itemsize].view(dtype).reshape(shape)


@_function
def cudaGetDeviceCount():
    return int(os.environ.get("FAKE_CARDS", "1"))


@_function
def cudaDriverGetVersion():
    return int(os.environ.get("FAKE_DRIVER", "12060"))


@_function
def cudaGetDeviceProperties(device):
    name, _, capability = os.environ.get("FAKE_CARD", "NVIDIA Orin:8.7").partition(":")
    major, minor = map(int, capability.split("."))
    integrated = int(os.environ.get("FAKE_INTEGRATED", "0"))
    count = int(os.environ.get("FAKE_MULTIPROCESSORS", "16"))
    return SimpleNamespace(
        name=name.encode(),
        major=major,
        minor=minor,
        multiProcessorCount=count,
        integrated=integrated,
        canMapHostMemory=1,
    )


@_function
def cudaMalloc(size):
    memory = np.full(size + 256, 0xA5, np.uint8)
    memory = memory[-memory.ctypes.data % 256 :][:size]  # as far apart as the card's memory is
    DEVICE[memory.ctypes.data] = memory
    return memory.ctypes.data


@_function
def cudaFree(devPtr):
    del DEVICE[devPtr]


@_function
def cudaHostAlloc(size, flags):
    memory = np.full(size, 0x5A, np.uint8)
    PINNED[memory.ctypes.data] = memory
    if flags == cudaHostAllocMapped:
        MAPPED[memory.ctypes.data + _ON_CARD] = memory
    return memory.ctypes.data


@_function
def cudaHostGetDevicePointer(pHost, flags):
    assert flags == 0
    assert pHost + _ON_CARD in MAPPED, "it is not mapped"
    return pHost + _ON_CARD


@_function
def cudaFreeHost(ptr):
    del PINNED[ptr]
    MAPPED.pop(ptr + _ON_CARD, None)


@_function
def cudaSetDeviceFlags(flags):
    assert not STREAMS, "it is too late"


@_function
def cudaPointerGetAttributes(ptr):
    kind = cudaMemoryType.cudaMemoryTypeUnregistered if on_card(ptr) is None else cudaMemoryType.cudaMemoryTypeDevice
    return SimpleNamespace(type=kind, device=int(os.environ.get("FAKE_DEVICE", "0")))


@_function
def cudaStreamCreateWithFlags(flags):
    assert flags == cudaStreamNonBlocking
    handle = 7000 + len(CALLS)
    STREAMS[handle] = _Stream()
    return handle


@_function
def cudaStreamSynchronize(stream):
    pending, STREAMS[stream].pending = STREAMS[stream].pending, []
    for operation in pending:
        operation()


@_function
def cudaStreamDestroy(stream):
    assert not STREAMS.pop(stream).pending, "destroyed with work in it"


@_function
def cudaMemcpyAsync(dst, src, count, kind, stream):
    to_card = kind == cudaMemcpyKind.cudaMemcpyHostToDevice
    source, target = (PINNED[src], DEVICE[dst]) if to_card else (DEVICE[src], PINNED[dst])
    assert count <= source.nbytes
    assert count <= target.nbytes
    STREAMS[stream].put(lambda: ctypes.memmove(dst, src, count))


@_function
def cudaStreamBeginCapture(stream, mode):
    assert not STREAMS[stream].pending
    STREAMS[stream].capturing = []


@_function
def cudaStreamEndCapture(stream):
    graph, STREAMS[stream].capturing = STREAMS[stream].capturing, None
    GRAPHS[id(graph)] = graph
    return id(graph)


@_function
def cudaGraphInstantiate(graph, flags):
    executable = list(GRAPHS[graph])
    GRAPHS[id(executable)] = executable
    return id(executable)


@_function
def cudaGraphUpload(graphExec, stream):
    assert graphExec in GRAPHS
    assert stream in STREAMS


@_function
def cudaGraphLaunch(graphExec, stream):
    for operation in GRAPHS[graphExec]:
        STREAMS[stream].put(operation)


@_function
def cudaGraphDestroy(graph):
    del GRAPHS[graph]


@_function
def cudaGraphExecDestroy(graphExec):
    del GRAPHS[graphExec]


def cudaGetErrorString(error):
    return cudaError_t.cudaSuccess, cudaError_t(error).name.encode()
