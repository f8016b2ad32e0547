"""NVIDIA's parser and builder as a gate: TensorRT-RTX needs no card to parse and build."""

from pathlib import Path

import pytest

CARDS = ("SM86", "SM89", "SM120")


def build_engine(path: Path, card: str = "SM86") -> bytes:
    """Parse and build an ONNX file for one card; fails the test with NVIDIA's words."""
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")
    messages: list[str] = []

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity, message) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                messages.append(message)

    logger = Logger()
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        pytest.fail("\n".join(str(parser.get_error(index)) for index in range(parser.num_errors)))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, card), 0)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        pytest.fail("the graph parses but does not build:\n" + "\n".join(messages))
    return bytes(engine)
