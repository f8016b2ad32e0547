"""Arrays that lie on the card already, as PyTorch, CuPy and NVIDIA's decoders have them: by DLPack or by address.

https://dmlc.github.io/dlpack/latest/c_api.html, https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sfpp.runtime.errors import BackendError
from sfpp.runtime.tensorrt.cuda import Cuda

_CUDA, _CUDA_MANAGED = 2, 13  # kinds of device in DLPack
_KINDS = {0: "int", 1: "uint", 2: "float", 6: "bool"}
_ALIGNED = 256  # bytes, as TensorRT wants addresses


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """An array on the card: what NumPy says of its own, and where it lies; ``owner`` keeps it there."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    address: int
    owner: Any


def device_array(values: Any, name: str, cuda: Cuda, stream: int) -> DeviceArray | None:
    """Return an input that lies on the card; None where it is an array of NumPy.

    What is put into ``stream`` from now on comes after whatever its maker is still doing to it.

    Raises:
        BackendError: it lies on another card or on none, or is not one block that TensorRT can read.
    """
    if isinstance(values, np.ndarray):
        return None
    if hasattr(values, "__dlpack__"):
        found = _from_dlpack(values, name, stream)
    elif hasattr(values, "__cuda_array_interface__"):
        found = _from_interface(values, name, cuda)
    else:
        raise BackendError(
            f"the input {name!r} is a {type(values).__name__}; expected a NumPy array, or one on the card that has "
            "__dlpack__ or __cuda_array_interface__"
        )
    if not cuda.is_on_card(found.address):
        raise BackendError(
            f"the input {name!r} does not lie on the first card, where the engine runs; move it there, or give a NumPy "
            "array"
        )
    if found.address % _ALIGNED:
        raise BackendError(f"the input {name!r} begins at no multiple of {_ALIGNED} bytes; give a copy of it")
    return found


def _from_interface(values: Any, name: str, cuda: Cuda) -> DeviceArray:
    facts = values.__cuda_array_interface__
    shape, dtype = tuple(facts["shape"]), np.dtype(facts["typestr"])
    _check_contiguous(name, shape, facts.get("strides"), itemsize=dtype.itemsize)
    if facts.get("stream"):
        cuda.synchronize(facts["stream"])
    return DeviceArray(shape, dtype, int(facts["data"][0]), values)


def _from_dlpack(values: Any, name: str, stream: int) -> DeviceArray:
    kind, number = values.__dlpack_device__()
    if int(kind) not in (_CUDA, _CUDA_MANAGED) or number != 0:
        raise BackendError(
            f"the input {name!r} lies on the device ({int(kind)}, {number}) of DLPack, and the engine runs on "
            f"({_CUDA}, 0), the first card; move it there, or give a NumPy array"
        )
    # The capsule is not consumed: it frees what it holds when it goes, which is after the run.
    capsule = values.__dlpack__(stream=stream)
    tensor = _Tensor.from_address(_pointer(capsule, b"dltensor"))
    dtype = _dtype_of(name, tensor.kind, tensor.bits, tensor.lanes)
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    if tensor.strides:
        strides = tuple(tensor.strides[axis] * dtype.itemsize for axis in range(tensor.ndim))
        _check_contiguous(name, shape, strides, itemsize=dtype.itemsize)
    return DeviceArray(shape, dtype, tensor.data + tensor.byte_offset, capsule)


class _Tensor(ctypes.Structure):
    """DLPack's ``DLTensor``, with which its ``DLManagedTensor`` begins."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_kind", ctypes.c_int32),
        ("device_number", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("kind", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def _pointer(capsule: Any, name: bytes) -> int:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    return int(get(capsule, name))


def _dtype_of(name: str, kind: int, bits: int, lanes: int) -> np.dtype[Any]:
    if kind not in _KINDS or lanes != 1:
        raise BackendError(f"the input {name!r} has a type of DLPack's code {kind}, which NumPy lacks; convert it")
    return np.dtype("bool" if _KINDS[kind] == "bool" else f"{_KINDS[kind]}{bits}")


def _check_contiguous(name: str, shape: tuple[int, ...], strides: Any, *, itemsize: int) -> None:
    expected = tuple(itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    if strides is not None and any(
        size > 1 and have != want for size, have, want in zip(shape, strides, expected, strict=True)
    ):
        raise BackendError(f"the input {name!r} is a view with gaps; give a contiguous copy of it")
