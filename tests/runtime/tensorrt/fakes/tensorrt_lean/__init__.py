"""TensorRT's lean runtime: it loads version-compatible engines alone, and has no names for formats."""

import json

import tensorrt
from tensorrt import *  # noqa: F403
from tensorrt import ILogger, __version__

__version__ = __version__
nptype = tensorrt.nptype
del Builder, OnnxParser, TensorFormat  # noqa: F821 - they came with the star


class Runtime(tensorrt.Runtime):
    def deserialize_cuda_engine(self, data):
        data = data if isinstance(data, bytes) else tensorrt._read_all(data)
        if "VERSION_COMPATIBLE" not in json.loads(data.split(b"\n", 2)[1])["flags"]:
            self._logger.log(ILogger.ERROR, "not a version-compatible engine")
            return None
        return super().deserialize_cuda_engine(data)
