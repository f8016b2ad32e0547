"""A model file run with its insides among its outputs: the tokens that attentions meet, matchings, and any value."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from sfpp.export.parity.pinning import GraphCells, GraphChoice, GraphMatching
from sfpp.export.parity.points import LOGITS, Point
from sfpp.runtime.backends import BackendOptions
from sfpp.runtime.backends.onnxruntime import import_onnxruntime
from sfpp.runtime.contract import ModelContract
from sfpp.runtime.errors import BackendError, ModelFileError, VerificationError
from sfpp.runtime.onnx_file import not_an_onnx_model
from sfpp.tooling.graph import GraphIndex, bytes_of, graph_for_one_frame, opened_graph

# What conversions to lower precision put before or behind a value without meaning another one; and what makes labels of
# logits.
_CONVERSIONS = frozenset({"Cast", "QuantizeLinear", "DequantizeLinear"})
_DECISIONS = frozenset({"ArgMax", "Greater", "Resize"})
# Above this the points are computed in several runs. All of them together take 0.2 GB in a B0 at 1920x1080, and 6 GB in
# a B5 at 3840x2160.
GROUP_BYTES_LIMIT = 3 << 28
# With less than this a session stays open: opening takes as long as PyTorch's run then, and beyond it the memory that a
# session holds (1.3 GB at 1920x1080) is worth more than a fraction of a second.
_KEPT_BYTES = 1 << 26


@dataclass(frozen=True)
class ProbedAnswer:
    """What one run gave: the answer, and what was seen inside; ``values`` are the points' by name."""

    answer: NDArray[Any]
    tokens: tuple[AttentionTokens, ...]
    matchings: tuple[GraphChoice, ...]
    values: dict[str, NDArray[Any]] = field(default_factory=dict)


_Run = Callable[[NDArray[Any]], ProbedAnswer]


@dataclass(frozen=True)
class Group:
    """Points that are compared in one run; ``carried`` are earlier ones that these are computed from."""

    points: tuple[Point, ...]
    carried: tuple[Point, ...] = ()


def groups_of(points: Sequence[Point], sizes: Mapping[str, int], *, limit: int = GROUP_BYTES_LIMIT) -> list[Group]:
    """Split points, in the order of the network, into runs whose values stay below a limit.

    Args:
        points: those that the graph has.
        sizes: bytes of each point's value by name.
        limit: bytes of one group; a single larger point makes a group of its own.
    """
    starts, filled = [0], 0
    for index, point in enumerate(points):
        size = sizes.get(point.name, 0)
        if index > starts[-1] and filled + size > limit:
            starts.append(index)
            filled = 0
        filled += size
    ends = [*starts[1:], len(points)]
    return [Group(tuple(points[a:b]), carried_by(points[:a], points[a:b])) for a, b in zip(starts, ends, strict=True)]


def carried_by(before: Sequence[Point], group: Sequence[Point]) -> tuple[Point, ...]:
    """Return those of the points that come before a group which the group's values are computed from."""
    bases = {point.base for point in group}
    return tuple(point for point in before if point.lasting or point is before[-1] or point.name in bases)


def read_graph(path: Path) -> onnx.ModelProto:
    """Read an ONNX file; one for any number of frames as for one.

    Raises:
        ModelFileError: it is not an ONNX model.
    """
    try:
        return graph_for_one_frame(onnx.load(str(path)))
    except (DecodeError, OSError) as error:
        raise not_an_onnx_model(path, str(error)) from error


class ProbedModel:
    """The runs of a graph that report what is computed on the way; nothing is opened before the first of them.

    Args:
        model: the graph; it has more outputs while a run is opened.
        contract: its contract.
        points: what to report; what the graph does not have is left out.
        backend: what runs it, by name; None for what the runtime would choose.
        options: threads and precision.
        keep: whether it may stay open from one run to the next.
        limit: bytes of values that one run may report.

    Attributes:
        points: those that the graph has.
        missing: the names of the others.
        value_bytes: of all points' values together, as far as the file tells their shapes.
        run_bytes: of those that one run reports.
        description: of the backend, once something has run.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        contract: ModelContract,
        points: Sequence[Point],
        *,
        backend: str | None,
        options: BackendOptions,
        keep: bool = False,
        limit: int = GROUP_BYTES_LIMIT,
    ) -> None:
        self._model, self._contract = model, contract
        # Not kept in the cache of compiled models, where nobody would ask for it again.
        self._backend_name, self._options = backend, dataclasses.replace(options, cache=False)
        self._tensors = tensors_of(model, points, contract.outputs[0].name)
        self.points = tuple(point for point in points if point.name in self._tensors)
        self.missing = tuple(point.name for point in points if point.name not in self._tensors)
        # sfpp-export writes every shape; for another file the points make one group, whatever its size.
        known = bytes_of(model.graph)
        sizes = {name: sum(known.get(each, 0) for each in held) for name, held in self._tensors.items()}
        self.value_bytes = sum(sizes[point.name] for point in self.points)
        self.description = ""
        self._groups = groups_of(self.points, sizes, limit=limit)
        self.run_bytes = max(
            (sum(sizes[point.name] for point in (*group.carried, *group.points)) for group in self._groups), default=0
        )
        self._keeps = keep and len(self._groups) == 1 and self.value_bytes <= _KEPT_BYTES
        self._kept = contextlib.ExitStack()
        self._run: _Run | None = None

    def runs(self, tensor: NDArray[Any]) -> Iterator[tuple[Group, ProbedAnswer]]:
        """Run the graph on an input once for each group of points.

        Raises:
            BackendError, ModelFileError: the backend does not take the graph with more outputs, or fails.
        """
        for group in self._groups:
            if self._keeps:
                self._run = self._run or self._kept.enter_context(self._open(group))
                yield group, self._run(tensor)
                continue
            with self._open(group) as run:
                answer = run(tensor)
            yield group, answer
            del answer  # before the next group's values come

    def close(self) -> None:
        """Release the model."""
        self._run = None
        self._kept.close()

    def __enter__(self) -> ProbedModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _open(self, group: Group) -> Iterator[_Run]:
        """Open the graph with a group's values among its outputs, and yield what runs it."""
        tensors = {point.name: self._tensors[point.name] for point in (*group.carried, *group.points)}
        graph = self._model.graph
        node_count, output_count = len(graph.node), len(graph.output)
        probes = add_probes(graph)
        present = {output.name for output in graph.output}
        more = dict.fromkeys(name for names in tensors.values() for name in names if name not in present)
        # Without a type: it is another one in each precision, and the libraries know it.
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in more)
        names = [output.name for output in graph.output]

        def run(tensor: NDArray[Any]) -> ProbedAnswer:
            values = list(opened.run({self._contract.input.name: tensor}).values())
            # By their order: OpenVINO drops casts, and what then has two names has either of them.
            if len(values) != len(names):
                raise BackendError(f"{opened.description} gives {len(values)} of {len(names)} outputs")
            outputs = dict(zip(names, values, strict=True))
            seen = {name: outputs[name] for name in probes}
            points = {
                point: outputs[parts[0]] if len(parts) == 1 else np.concatenate([outputs[each] for each in parts], 1)
                for point, parts in tensors.items()
            }
            answer = outputs[self._contract.outputs[0].name]
            return ProbedAnswer(answer, tuple(tokens_in(seen)), tuple(matchings_in(seen)), points)

        opening = opened_graph(
            self._model, backend=self._backend_name, options=self._options, target=self._contract.target
        )
        with contextlib.ExitStack() as stack:
            try:
                opened = stack.enter_context(opening)
            finally:
                # Rather than a copy, which would take as much memory as the weights do.
                del graph.node[node_count:], graph.output[output_count:]
            self.description = opened.description
            yield run


def tensors_of(model: onnx.ModelProto, points: Sequence[Point], output: str) -> dict[str, list[str]]:
    """Return the names of the tensors that hold each point's value; points that the graph does not have are left out.

    Args:
        model: the graph.
        points: what to look for.
        output: the graph's output, from which the logits are found also where the graph gives labels.
    """
    index, nodes = GraphIndex(model), {node.name: node for node in model.graph.node if node.name}
    found: dict[str, list[str]] = {}
    for point in points:
        if point.name == LOGITS:
            found[LOGITS] = [index.origin(output, _CONVERSIONS | _DECISIONS)]
            continue
        holders = [nodes[name] for name in _names(point, nodes)]
        if holders and point.node_side == "output":
            found[point.name] = [node.output[0] for node in holders]
        elif holders:
            found[point.name] = [index.origin(node.input[0], _CONVERSIONS) for node in holders]
    return found


def _names(point: Point, nodes: Mapping[str, onnx.NodeProto]) -> list[str]:
    if not point.parts:
        return [point.node] if point.node in nodes else []
    pattern = re.compile(rf"{re.escape(point.node)}(_\d+)?")
    matching = [name for name in nodes if pattern.fullmatch(name)]
    return sorted(matching, key=lambda name: int(name.rpartition("_")[2]) if name != point.node else 0)


@dataclass(frozen=True)
class AttentionTokens:
    """How many query and key/value tokens one attention really worked on, measured while the graph ran."""

    name: str
    query: int
    key_value: int


def require_onnxruntime() -> None:
    """Ask for ONNX Runtime, which folds constants too, so an export does that before anything else.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
    """
    import_onnxruntime(extra="export", purpose="checking the exported model")


def run_with_probes(path: Path, contract: ModelContract, frames: NDArray[Any]) -> ProbedAnswer:
    """Run the ONNX file at ``path`` in ONNX Runtime on ``frames``, an input of the contract's shape and type.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        VerificationError: the file does not run.
    """
    options = BackendOptions(arena=False)  # of one run
    try:
        with ProbedModel(onnx.load(str(path)), contract, (), backend="onnxruntime", options=options) as probed:
            ((_, answer),) = probed.runs(frames)
    except (BackendError, ModelFileError) as error:
        raise VerificationError(f"the exported graph does not run in ONNX Runtime: {error}") from error
    return answer


def add_probes(graph: onnx.GraphProto) -> list[str]:
    """Make the shapes of query and key heads and the matchings outputs of the graph; return their names."""
    names = []
    for node in list(graph.node):
        last = node.name.rpartition("/")[2]
        for tensor, shape in _attention_inputs(node):
            graph.node.append(onnx.helper.make_node("Shape", [tensor], [shape]))
            names.append(shape)
        if re.fullmatch(r"(kept|partner|cell)(_\d+)?", last):
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


def matchings_in(seen: dict[str, NDArray[Any]]) -> Iterator[GraphChoice]:
    """Yield each matching and each round of k-means, in the order of the network, of the probes' values."""
    found = (each for each in seen if re.fullmatch(r"(partner|cell)(_\d+)?", each.rpartition("/")[2]))
    for name in sorted(found, key=_network_order):
        path, _, last = name.rpartition("/")
        if last.startswith("cell"):
            yield GraphCells(seen[name], path)
            continue
        partner = seen[name]
        nothing = np.zeros((len(partner), 0), np.int32)
        kept = seen.get(name.replace("/partner", "/kept"), nothing)
        yield GraphMatching(kept, partner, path)


def _network_order(name: str) -> tuple[bool, list[int]]:
    """Return decoder or not, stage, block, and the number of the merging within the attention: queries come first."""
    return name.startswith("head/"), [int(number) for number in re.findall(r"\d+", name)]
