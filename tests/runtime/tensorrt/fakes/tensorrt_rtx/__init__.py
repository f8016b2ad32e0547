"""TensorRT-RTX, as far as it differs from TensorRT: devices to build for, kernels compiled on the card and kept."""

import enum
import json
import os

import tensorrt
from tensorrt import *  # noqa: F403
from tensorrt import ILogger, nptype

__version__ = os.environ.get("FAKE_TENSORRT_RTX", "1.7.1.116")
nptype = nptype
COMPILED = []  # a line for each engine whose kernels were compiled


class ComputeCapability(enum.Enum):
    CURRENT = 1
    SM75 = 75
    SM86 = 86
    SM120 = 120


class CudaGraphStrategy(enum.Enum):
    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class _Config(tensorrt._Config):
    def __init__(self):
        super().__init__()
        self.num_compute_capabilities = 0
        self.capabilities = {}

    def set_compute_capability(self, capability, index):
        self.capabilities[index] = capability
        return capability is not ComputeCapability.CURRENT or os.environ.get("FAKE_CARDS") != "0"


class Builder(tensorrt.Builder):
    def create_builder_config(self):
        return _Config()

    def build_serialized_network(self, network, config):
        built = super().build_serialized_network(network, config)
        magic, facts, model = built.split(b"\n", 2)
        assert len(config.capabilities) == config.num_compute_capabilities
        facts = json.loads(facts) | {"devices": [each.name for each in config.capabilities.values()]}
        return magic + b"\n" + json.dumps(facts).encode() + b"\n" + model


class _RuntimeCache:
    def __init__(self):
        self.data = b""

    def deserialize(self, blob):
        fits = not blob.startswith(b"another card")
        self.data = blob if fits else b""
        return fits

    def serialize(self):
        return self.data


class _RuntimeConfig:
    cuda_graph_strategy = CudaGraphStrategy.DISABLED
    cache = None

    def create_runtime_cache(self):
        return _RuntimeCache()

    def set_runtime_cache(self, cache):
        self.cache = cache


class _Engine(tensorrt._Engine):
    def create_runtime_config(self):
        return _RuntimeConfig()

    def create_execution_context(self, runtime_config=None):
        assert runtime_config.cuda_graph_strategy is CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if runtime_config.cache is None or not runtime_config.cache.data:
            COMPILED.append(self)
            if runtime_config.cache is not None:
                runtime_config.cache.data = b"kernels"
        return super().create_execution_context()


class Runtime(tensorrt.Runtime):
    def deserialize_cuda_engine(self, data):
        data = data if isinstance(data, bytes) else tensorrt._read_all(data)
        if not data.startswith(tensorrt.MAGIC):
            self._logger.log(ILogger.ERROR, "the magic tag does not match")
            return None
        return _Engine(data.split(b"\n", 2)[2], self._logger)
