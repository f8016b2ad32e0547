"""What is to be right on every processor: integer kernels to the last bit, and files that another machine exported.

``make test-arm64`` runs this under an emulator, with files in the folder that ``SFPP_MODELS`` names.
"""

import os
import platform
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sfpp.runtime import load
from sfpp.runtime.self_test import self_test

MODELS = sorted(Path(os.environ.get("SFPP_MODELS", os.devnull)).glob("*.onnx"))
X86 = platform.machine() in {"x86_64", "AMD64"}
TYPES = {np.uint8: TensorProto.UINT8, np.int8: TensorProto.INT8}
RNG = np.random.default_rng(5)


def adds_in_16_bits():
    """Tell whether this is an x86 CPU that multiplies uint8 with int8 by pairs, whose sum is cut off at 16 bits."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split() if Path("/proc/cpuinfo").exists() else []
    return X86 and not {"avx512_vnni", "avx_vnni"} & set(flags)


def result_of(operator, tensors, *, inputs, output, shape, **attributes):
    """Run one operator in ONNX Runtime; ``tensors`` that are no ``inputs`` are constants."""
    nodes = [helper.make_node(operator, list(tensors), ["y"], **attributes)]
    given = [
        helper.make_tensor_value_info(name, TYPES[tensors[name].dtype.type], tensors[name].shape) for name in inputs
    ]
    constants = [
        numpy_helper.from_array(np.asarray(each), name) for name, each in tensors.items() if name not in inputs
    ]
    outputs = [helper.make_tensor_value_info("y", output, shape)]
    graph = helper.make_graph(nodes, "kernel", given, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented as error:
        pytest.skip(f"ONNX Runtime {onnxruntime.__version__} has no such kernel: {error}")
    return session.run(None, {name: tensors[name] for name in inputs})[0]


def random(kind, shape, largest=127):
    """Return integers of the whole range, or of -largest..largest."""
    low, high = (0, 255) if kind is np.uint8 else (-largest, largest)
    return RNG.integers(low, high + 1, shape).astype(kind)


def requantized(sums, kind, *, scale, zero):
    """Return ``sums`` times a power of two, which float32 does exactly, rounded to even and cut to the type's range."""
    limits = np.iinfo(kind)
    return np.clip(np.rint(sums * scale) + zero, limits.min, limits.max).astype(kind)


@pytest.fixture(params=[(np.uint8, 64), (np.uint8, 127), (np.int8, 127)], ids=["uint8-64", "uint8-127", "int8-127"])
def kinds(request):
    """The activations' type, and the largest weight, which is int8."""
    kind, largest = request.param
    if kind is np.uint8 and largest > 64 and adds_in_16_bits():
        pytest.skip("this CPU cuts sums of products of uint8 with int8 above 64 off at 16 bits")
    return kind, largest


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 5, 7), (16, 64, 32), (33, 127, 65), (4, 1024, 19)])
@pytest.mark.parametrize("weights", [np.int8, np.uint8])
def test_products_of_integers_are_exact(kinds, weights, size):
    activations, largest = kinds
    rows, depth, columns = size
    a, b = random(activations, (rows, depth)), random(weights, (depth, columns), largest)
    zero_a, zero_b = activations(3), weights(7)
    result = result_of(
        "MatMulInteger",
        {"a": a, "b": b, "zero_a": zero_a, "zero_b": zero_b},
        inputs="a",
        output=TensorProto.INT32,
        shape=[rows, columns],
    )
    exact = (a.astype(np.int64) - int(zero_a)) @ (b.astype(np.int64) - int(zero_b))
    np.testing.assert_array_equal(result, exact)


@pytest.mark.parametrize(("depth", "scale"), [(16, 2.0**-10), (256, 2.0**-12)])
def test_a_linear_layer_in_int8_is_exact(kinds, depth, scale):
    kind, largest = kinds
    a, b = random(kind, (20, depth)), random(np.int8, (depth, 24), largest)
    zero_a, zero_y = kind(9), kind(5)
    result = result_of(
        "QLinearMatMul",
        {
            "a": a,
            "scale_a": np.float32(0.5),
            "zero_a": zero_a,
            "b": b,
            "scale_b": np.float32(scale),
            "zero_b": np.int8(0),
            "scale_y": np.float32(0.5),
            "zero_y": zero_y,
        },
        inputs="a",
        output=TYPES[kind],
        shape=[20, 24],
    )
    sums = (a.astype(np.int64) - int(zero_a)) @ b.astype(np.int64)
    np.testing.assert_array_equal(result, requantized(sums, kind, scale=scale, zero=int(zero_y)))


@pytest.mark.parametrize(("window", "groups"), [(1, 1), (3, 1), (3, 16)], ids=["1x1", "3x3", "3x3-depthwise"])
def test_a_convolution_in_int8_is_exact(kinds, window, groups):
    kind, largest = kinds
    channels, height, width = 16, 9, 11
    x, w = (
        random(kind, (1, channels, height, width)),
        random(np.int8, (16, channels // groups, window, window), largest),
    )
    bias = RNG.integers(-2000, 2000, 16).astype(np.int32)
    scale, zero_x, zero_y = 2.0**-10, kind(6), kind(4)
    result = result_of(
        "QLinearConv",
        {
            "x": x,
            "scale_x": np.float32(1),
            "zero_x": zero_x,
            "w": w,
            "scale_w": np.full(16, scale, np.float32),
            "zero_w": np.zeros(16, np.int8),
            "scale_y": np.float32(1),
            "zero_y": zero_y,
            "bias": bias,
        },
        inputs="x",
        output=TYPES[kind],
        shape=[1, 16, height, width],
        pads=[window // 2] * 4,
        group=groups,
    )
    sums = slow_convolution(x.astype(np.int64) - int(zero_x), w.astype(np.int64), groups) + bias[:, None, None]
    np.testing.assert_array_equal(result[0], requantized(sums, kind, scale=scale, zero=int(zero_y)))


def slow_convolution(x, w, groups):
    """Convolve (1, C, H, W) with zeros around it, one output channel and one place of the window after the other."""
    outputs, inputs, window, _ = w.shape
    edge, (height, width) = window // 2, x.shape[2:]
    padded = np.pad(x[0], [(0, 0), (edge, edge), (edge, edge)])
    result = np.zeros((outputs, height, width), np.int64)
    for channel in range(outputs):
        first = channel // (outputs // groups) * inputs
        for row, column in np.ndindex(window, window):
            part = padded[first : first + inputs, row : row + height, column : column + width]
            result[channel] += np.tensordot(w[channel, :, row, column], part, 1)
    return result


@pytest.mark.skipif(not MODELS, reason="SFPP_MODELS names no folder of files that another machine exported")
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("path", MODELS, ids=[path.stem for path in MODELS])
def test_a_file_from_another_machine_passes_its_self_test(path, backend):
    pytest.importorskip(backend)
    result = self_test(load(path, backend=backend, precision="fp32"))
    assert result.passed, result.text()
