"""TensorRT as its documentation describes it, without a card: an engine is the ONNX file, run by ONNX Runtime.

The environment says which version it is (``FAKE_TENSORRT``) and what it does wrong (``FAKE_FAULT``), since engines are
built in another process. What an engine is built with is written into it, for tests to read.
"""

import enum
import json
import os
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from cuda.bindings import runtime as cudart

__version__ = os.environ.get("FAKE_TENSORRT", "10.3.0")
MAGIC = b"fake engine\n"
_FAULT = os.environ.get("FAKE_FAULT", "")


class DataType(enum.Enum):
    FLOAT = "float32"
    HALF = "float16"
    BF16 = "bfloat16"
    UINT8 = "uint8"
    INT8 = "int8"
    INT32 = "int32"
    FP8 = "float8"


class TensorFormat(enum.Enum):
    LINEAR = 0
    CHW32 = 5


class TensorLocation(enum.Enum):
    DEVICE = 0
    HOST = 1


class LayerType(enum.Enum):
    CONVOLUTION = 0
    CONSTANT = 1
    CAST = 2
    QUANTIZE = 3
    DEQUANTIZE = 4
    NORMALIZATION = 5


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class DeviceType(enum.Enum):
    GPU = 0
    DLA = 1


class HardwareCompatibilityLevel(enum.Enum):
    NONE = 0
    AMPERE_PLUS = 1
    SAME_COMPUTE_CAPABILITY = 2


if __version__.startswith("10.3"):
    HardwareCompatibilityLevel = enum.Enum("HardwareCompatibilityLevel", {"NONE": 0, "AMPERE_PLUS": 1})


class BuilderFlag(enum.Enum):
    FP16 = 0
    INT8 = 1
    GPU_FALLBACK = 3
    OBEY_PRECISION_CONSTRAINTS = 10
    VERSION_COMPATIBLE = 12


class NetworkDefinitionCreationFlag(enum.IntEnum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


def nptype(trt_type):
    if trt_type in (DataType.BF16, DataType.FP8):
        raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")
    return np.dtype(trt_type.value).type


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self):
        self.ready = True


class IProfiler:
    def __init__(self):
        self.ready = True


class SeekPosition(enum.Enum):
    SET = 0
    CUR = 1
    END = 2


class _StreamReader:
    def __init__(self):
        self.ready = True


if not __version__.startswith(("8.", "10.3")):
    IStreamReaderV2 = _StreamReader
OPENED = []  # the runtimes that loaded engines
PARTS = []  # the sizes in which an engine's file was read


def _read_all(reader):
    """Read as the library does: it asks for a part, goes back, and asks until it has what it wants."""
    assert reader.ready
    assert reader.seek(0, SeekPosition.END)
    assert reader.seek(0, SeekPosition.SET)
    whole = b""
    while part := bytes(reader.read(1 << 40, 0)):
        PARTS.append(len(part))
        whole += part
    return whole


class IProgressMonitor:
    def __init__(self):
        self.ready = True


class _TimingCache:
    def __init__(self, data):
        self.data = data

    def serialize(self):
        return self.data + b"measured;"


class _Config:
    def __init__(self):
        self.flags, self.pools = [], {}
        self.progress_monitor = self.hardware_compatibility_level = None
        self.default_device_type, self.DLA_core = DeviceType.GPU, -1
        self._cache = None

    def set_flag(self, flag):
        self.flags.append(flag)

    def set_memory_pool_limit(self, pool, size):
        self.pools[pool.name] = size

    def create_timing_cache(self, data):
        return _TimingCache(data)

    def set_timing_cache(self, cache, ignore_mismatch):
        if cache.data.startswith(b"other card"):
            return False
        self._cache = cache
        return True

    def get_timing_cache(self):
        return self._cache


class Builder:
    num_DLA_cores = 2

    def __init__(self, logger):
        assert logger.ready
        self._logger = logger

    def create_network(self, flags):
        return _Network(flags)

    def create_builder_config(self):
        return _Config()

    def build_serialized_network(self, network, config):
        if _FAULT == "talks":
            os.write(1, b"native words\n" * 20_000)  # more than a pipe holds
        if _FAULT == "gives up":
            self._logger.log(ILogger.ERROR, "no kernel for node 7")
            return None
        if _FAULT == "crashes":
            os.abort()
        if _FAULT == "is killed":
            os.kill(os.getpid(), 9)
        monitor = config.progress_monitor
        monitor.phase_start("Timing", None, 3)
        for step in range(3):
            time.sleep(60 if _FAULT == "takes long" else 0)
            monitor.step_complete("Timing", step)
        monitor.phase_finish("Timing")
        facts = {
            "flags": [flag.name for flag in config.flags],
            "network": network.flags,
            "pools": config.pools,
            "dla": [config.default_device_type.name, config.DLA_core],
            "hardware": config.hardware_compatibility_level and config.hardware_compatibility_level.name,
            "precisions": {each.name: each.kept() for each in network.layers if each.kept()},
        }
        return MAGIC + json.dumps(facts).encode() + b"\n" + network.data


class _Input:
    def __init__(self, value):
        self.name = value.name
        self.shape = tuple(size.dim_value or -1 for size in value.type.tensor_type.shape.dim)


class _LayerTensor:
    def __init__(self, name, dtype):
        self.name, self.dtype = name, dtype


_KINDS = {
    "Constant": LayerType.CONSTANT,
    "Cast": LayerType.CAST,
    "QuantizeLinear": LayerType.QUANTIZE,
    "DequantizeLinear": LayerType.DEQUANTIZE,
    "LayerNormalization": LayerType.NORMALIZATION,
}
_TYPES = {1: DataType.FLOAT, 2: DataType.UINT8, 3: DataType.INT8, 10: DataType.HALF}


class _Layer:
    """A node: its outputs have the types that the graph says."""

    def __init__(self, node, types):
        self.name = node.output[0]
        self.type = _KINDS.get(node.op_type, LayerType.CONVOLUTION)
        self._inputs = [_LayerTensor(name, None) if name else None for name in node.input]
        self._outputs = [_LayerTensor(name, types[name]) for name in node.output]
        self.precision, self.output_types = None, {}
        self.num_inputs, self.num_outputs = len(self._inputs), len(self._outputs)

    def get_input(self, index):
        return self._inputs[index]

    def get_output(self, index):
        return self._outputs[index]

    def set_output_type(self, index, dtype):
        self.output_types[index] = dtype

    def kept(self):
        kept = {self.precision, *self.output_types.values()} - {None}
        return sorted(each.name for each in kept)


class _Network:
    def __init__(self, flags):
        self.flags = flags
        self.data = b""
        self._inputs = []
        self.layers = []

    def load(self, data):
        self.data = data
        model = onnx.shape_inference.infer_shapes(onnx.load_from_string(data))
        graph = model.graph
        self._inputs = [_Input(value) for value in graph.input]
        types = {each.name: _TYPES.get(each.type.tensor_type.elem_type) for each in [*graph.value_info, *graph.output]}
        self.layers = [_Layer(node, types) for node in graph.node]

    @property
    def num_layers(self):
        return len(self.layers)

    def get_layer(self, index):
        return self.layers[index]

    @property
    def num_inputs(self):
        return len(self._inputs)

    def get_input(self, index):
        return self._inputs[index]


class _ParserError:
    def desc(self):
        return "no importer registered for op: Foreign"

    def node_name(self):
        return "head/foreign"

    def node_operator(self):
        return "Foreign"


class OnnxParser:
    num_errors = 1

    def __init__(self, network, logger):
        self._network = network

    def parse_from_file(self, path):
        self._network.load(Path(path).read_bytes())
        return _FAULT != "does not parse"

    def get_error(self, index):
        return _ParserError()


class Runtime:
    def __init__(self, logger):
        assert logger.ready
        self._logger = logger
        self.engine_host_code_allowed = False
        self.num_DLA_cores = int(os.environ.get("FAKE_DLA_CORES", "2"))
        self.DLA_core = -1

    def deserialize_cuda_engine(self, data):
        data = data if isinstance(data, bytes) else _read_all(data)
        if not data.startswith(MAGIC):
            self._logger.log(ILogger.ERROR, "the magic tag does not match")
            return None
        facts, _, model = data.removeprefix(MAGIC).partition(b"\n")
        OPENED.append(self)
        if "VERSION_COMPATIBLE" in json.loads(facts)["flags"] and not self.engine_host_code_allowed:
            self._logger.log(ILogger.ERROR, "host code is not allowed")
            return None
        return _Engine(model, self._logger)


class _Engine:
    def __init__(self, model, logger):
        self._logger = logger
        self.session = onnxruntime.InferenceSession(model)
        self._modes = {value.name: TensorIOMode.INPUT for value in self.session.get_inputs()}
        self._modes |= {value.name: TensorIOMode.OUTPUT for value in self.session.get_outputs()}
        self._values = {value.name: value for value in [*self.session.get_inputs(), *self.session.get_outputs()]}

    @property
    def num_io_tensors(self):
        return len(self._values)

    def get_tensor_name(self, index):
        return list(self._values)[index]

    def get_tensor_mode(self, name):
        return self._modes[name]

    def get_tensor_shape(self, name):
        return tuple(size if isinstance(size, int) else -1 for size in self._values[name].shape)

    def get_tensor_format(self, name):
        return TensorFormat.CHW32 if f"{name} is padded" == _FAULT else TensorFormat.LINEAR

    def get_tensor_format_desc(self, name):
        vectors = "Thirty-two wide channel vectorized row major FP32 format"
        return vectors if self.get_tensor_format(name) is TensorFormat.CHW32 else "Row major linear FP32 format"

    def get_tensor_vectorized_dim(self, name):
        return -1 if self.get_tensor_format(name) is TensorFormat.LINEAR else 1

    def get_tensor_location(self, name):
        return TensorLocation.HOST if f"{name} is a shape" == _FAULT else TensorLocation.DEVICE

    def get_tensor_dtype(self, name):
        if f"{name} is FP8" == _FAULT:
            return DataType.FP8
        kind = self._values[name].type.removeprefix("tensor(").removesuffix(")")
        return DataType({"float": "float32"}.get(kind, kind))

    def create_execution_context(self):
        return None if _FAULT == "has no memory" else _Context(self)


class _Context:
    def __init__(self, engine):
        self.engine = engine
        self.profiler = None
        self._addresses = {}

    def set_tensor_address(self, name, memory):
        self._addresses[name] = memory
        return cudart.on_card(memory) is not None

    def execute_async_v3(self, stream_handle):
        assert self._addresses.keys() == self.engine._values.keys()
        if _FAULT == "does not run":
            for number in range(100):
                self.engine._logger.log(ILogger.ERROR, f"layer {number} has no memory")
            return False
        addresses = dict(self._addresses)
        cudart.enqueue(stream_handle, lambda: self._compute(addresses))
        return True

    def _compute(self, addresses):
        arrays = {
            name: cudart.device_array(
                address, self.engine.get_tensor_shape(name), nptype(self.engine.get_tensor_dtype(name))
            )
            for name, address in addresses.items()
        }
        inputs = {
            name: each for name, each in arrays.items() if self.engine.get_tensor_mode(name) == TensorIOMode.INPUT
        }
        names = [name for name in arrays if name not in inputs]
        for name, result in zip(names, self.engine.session.run(names, inputs), strict=True):
            arrays[name][...] = result
        if self.profiler is not None:
            self.profiler.report_layer_time("encoder", 2.0)
            self.profiler.report_layer_time("head", 3.0)
