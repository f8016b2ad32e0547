"""Run an exported graph once with its insides reported: the tokens that each attention meets, and each matching."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from sfpp.export.parity.pinning import GraphMatching
from sfpp.runtime.contract import ModelContract
from sfpp.runtime.errors import MissingDependencyError, VerificationError
from sfpp.runtime.resources import thread_limit


@dataclass(frozen=True)
class AttentionTokens:
    """How many query and key/value tokens one attention really worked on, measured while the graph ran."""

    name: str
    query: int
    key_value: int


@dataclass(frozen=True)
class ProbedRun:
    """The answer of a graph, and what was seen inside, both in the order of the network."""

    answer: NDArray[Any]
    tokens: tuple[AttentionTokens, ...]
    matchings: tuple[GraphMatching, ...]


def require_onnxruntime() -> Any:
    """Return the module, which folds constants too, so an export asks for it before anything else.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError("onnxruntime", extra="export", purpose="checking the exported model") from error
    return onnxruntime


def run_with_probes(path: Path, contract: ModelContract, frames: NDArray[Any]) -> ProbedRun:
    """Run the ONNX file at ``path`` in ONNX Runtime on ``frames``, an input of the contract's shape and type.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        VerificationError: the file does not run.
    """
    onnxruntime = require_onnxruntime()
    model = onnx.load(str(path))
    probes = add_probes(model.graph)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = thread_limit() or 0  # 0: as many as ONNX Runtime takes by itself
    options.enable_cpu_mem_arena = False  # one run: an arena would only hold memory that nobody asks for again
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        answer, *values = session.run([contract.outputs[0].name, *probes], {contract.input.name: frames})
    except Exception as error:
        raise VerificationError(f"the exported graph does not run in ONNX Runtime: {error}") from error
    seen = dict(zip(probes, values, strict=True))
    return ProbedRun(answer, tuple(tokens_in(seen)), tuple(matchings_in(seen)))


def add_probes(graph: onnx.GraphProto) -> list[str]:
    """Make the shapes of query and key heads and the matchings outputs of the graph; return their names."""
    names = []
    for node in list(graph.node):
        last = node.name.rpartition("/")[2]
        for tensor, shape in _attention_inputs(node):
            graph.node.append(onnx.helper.make_node("Shape", [tensor], [shape]))
            names.append(shape)
        if re.fullmatch(r"(kept|partner)(_\d+)?", last):
            names.append(node.output[0])
    # Without types: the libraries know them, and a file of another origin may count in int64.
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return names


def _attention_inputs(node: onnx.NodeProto) -> list[tuple[str, str]]:
    """Return the tensors that hold an attention's queries and keys, with the names of their probes."""
    path, _, last = node.name.rpartition("/")
    if last in ("query_heads", "key_heads"):
        return [(node.output[0], f"{node.name}/shape")]
    if node.op_type == "MultiHeadAttention":
        return [(node.input[0], f"{path}/query_heads/shape"), (node.input[1], f"{path}/key_heads/shape")]
    return []


def tokens_in(seen: dict[str, NDArray[Any]]) -> Iterator[AttentionTokens]:
    """Yield what each attention met, in the order of the network, of the probes' values."""
    for name in sorted((each for each in seen if each.endswith("/query_heads/shape")), key=_network_order):
        path = name.removesuffix("/query_heads/shape")
        queries, keys = seen[name], seen[f"{path}/key_heads/shape"]
        if len(queries) == 3:  # (batch, tokens, channels) of a fused operator
            yield AttentionTokens(path, int(queries[1]), int(keys[1]))
        else:  # (batch, heads, tokens, width), keys transposed
            yield AttentionTokens(path, int(queries[2]), int(keys[3]))


def matchings_in(seen: dict[str, NDArray[Any]]) -> Iterator[GraphMatching]:
    """Yield each matching, in the order of the network, of the probes' values."""
    for name in sorted((each for each in seen if "/partner" in each), key=_network_order):
        partner = seen[name]
        nothing = np.zeros((len(partner), 0), np.int32)
        kept = seen.get(name.replace("/partner", "/kept"), nothing)
        yield GraphMatching(kept, partner, name.partition("/partner")[0])


def _network_order(name: str) -> tuple[bool, list[int]]:
    """Return decoder or not, stage, block, and the number of the merging within the attention: queries come first."""
    return name.startswith("head/"), [int(number) for number in re.findall(r"\d+", name)]
