"""What a file can reach at most on a GPU: what it computes and moves, against published peaks. Nothing is measured."""

from __future__ import annotations

import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto

from sfpp.export.costs import products
from sfpp.runtime.errors import UsageError
from sfpp.runtime.tensorrt.facts import Gpu, gpus
from sfpp.runtime.text import aligned
from sfpp.runtime.typed_json import json_from_file
from sfpp.tooling.graph import bytes_of, name_of, names_read_by, read_model

Precision = Literal["fp32", "fp16", "int8"]
# They move nothing of their own: the builder reads through them.
_THROUGH = frozenset(
    ("QuantizeLinear", "DequantizeLinear", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")
)
# Builders compute these within the operator before or behind, so what they move is its input and output.
_ELEMENTWISE = frozenset(
    ("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Erf", "Gelu", "Relu", "Sigmoid", "Tanh", "Exp", "Neg", "Abs", "Clip")
) | frozenset(("Where", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "And", "Or", "Not", "Min", "Max"))
_TRANSPOSED = "Transpose"
_STAGE = re.compile(r"\bstages\.(\d+)")
# Tensor cores compute float32 as TF32, at most half as fast as float16.
_TF32 = 0.5


@dataclass(frozen=True)
class Work:
    """What one run of a part takes: a stage, the head, or what is before and behind.

    Attributes:
        stage: ``stage 1`` to ``stage 4``, ``head`` or ``rest``.
        multiply_adds: of products and convolutions, by the precision that they are computed in.
        weight_bytes: of its constants.
        activation_bytes: what its operators read and write beside these if only the elementwise ones were fused.
    """

    stage: str
    multiply_adds: dict[str, int]
    weight_bytes: int
    activation_bytes: int


@dataclass(frozen=True)
class Bound:
    """What peaks of a GPU leave of a file's frames a second.

    Attributes:
        gpu: whose peaks they are.
        compute: where only its tensor cores count; no engine passes it.
        fused: where only its memory counts, and a run moves nothing but weights, input and output; none passes it where
            no cache keeps these from one run to the next.
        usual: likewise, where operators read and write their tensors and only elementwise ones are fused, which is
            nearer to what engines do, and no bound.
    """

    gpu: Gpu
    compute: float
    fused: float
    usual: float


@dataclass(frozen=True)
class Measured:
    """What ``sfpp-bench --json`` measured of a file: frames a second of the network alone, and with all around it."""

    network: float
    whole: float | None
    where: str
    gpu: str


@dataclass(frozen=True)
class Bounds:
    """Everything that is known of a file's speed without a GPU.

    Attributes:
        model: the file.
        works: its parts, in the order in which they run.
        end_bytes: of its input and output.
        frames: per run.
        bounds: one for each GPU.
        measured: what was measured.
    """

    model: Path
    works: tuple[Work, ...]
    end_bytes: int
    frames: int
    bounds: tuple[Bound, ...]
    measured: tuple[Measured, ...] = ()


def bounds_of(model: str | os.PathLike[str], *, measured: Sequence[str | os.PathLike[str]] = ()) -> Bounds:
    """Return the bounds of an ONNX file with fixed shapes.

    Args:
        model: the file.
        measured: JSON of ``sfpp-bench``, from devices that ran this file or an engine of the same name.

    Raises:
        ModelFileError: no such file, not an ONNX model, or one with open shapes.
        UsageError: the JSON is of another kind, or of other models.
    """
    path = Path(model)
    graph = read_model(path)
    works = tuple(works_of(graph))
    sizes = bytes_of(graph.graph)
    stored = {each.name for each in graph.graph.initializer}
    inputs = [each for each in graph.graph.input if each.name not in stored]  # old files name their weights here, too
    end_bytes = sum(sizes[each.name] for each in (*inputs, *graph.graph.output))
    first_axes = [each.type.tensor_type.shape.dim[:1] for each in inputs]
    frames = max([1, *(axis.dim_value for axes in first_axes[:1] for axis in axes)])
    bounds = tuple(bound_on(gpu, works, end_bytes, frames=frames) for gpu in gpus())
    return Bounds(
        path,
        works,
        end_bytes,
        frames,
        bounds,
        tuple(m for file in measured for m in _measured(file, path, frames=frames)),
    )


def bound_on(gpu: Gpu, works: Sequence[Work], end_bytes: int, *, frames: int = 1) -> Bound:
    """Return what the peaks of a GPU leave of a graph's speed."""
    peaks = {
        "fp32": _TF32 * gpu.fp16_tflops * 1e12,
        "fp16": gpu.fp16_tflops * 1e12,
        "int8": gpu.int8_tops * 1e12,
    }
    counts: Counter[str] = Counter()
    for each in works:
        counts.update(each.multiply_adds)
    compute_s = sum(2 * count / peaks[precision] for precision, count in counts.items())
    weights = sum(each.weight_bytes for each in works)
    moved = weights + sum(each.activation_bytes for each in works)
    bandwidth = gpu.bandwidth_gb_s * 1e9
    return Bound(
        gpu, *(frames / max(time, 1e-12) for time in (compute_s, (weights + end_bytes) / bandwidth, moved / bandwidth))
    )


def works_of(model: onnx.ModelProto) -> Iterator[Work]:
    """Yield what each part of a graph with the shape of every tensor takes."""
    sizes, writers = bytes_of(model.graph), {name: node for node in model.graph.node for name in node.output}
    weights = {each.name: _stored_bytes(each) for each in model.graph.initializer}
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    weight_bytes: Counter[str] = Counter()
    activation_bytes: Counter[str] = Counter()
    types = _types(model.graph)
    for node, count in products(model):
        counts[_stage(node)][_precision(node, writers, types)] += count
    seen: set[str] = set()
    order = dict.fromkeys(map(_stage, model.graph.node))
    for node in model.graph.node:
        stage = _stage(node)
        for name in names_read_by(node):
            if name in weights and name not in seen:
                seen.add(name)
                weight_bytes[stage] += weights[name]
        if node.op_type not in _THROUGH | _ELEMENTWISE:
            read = (_origin(name, writers) for name in node.input if name)
            moved = (*(name for name in read if name not in weights), *node.output)
            activation_bytes[stage] += sum(sizes.get(name, 0) for name in moved)
    for stage in sorted(order, key=lambda each: (each == "rest", each == "head", each)):
        yield Work(stage, dict(counts[stage]), weight_bytes[stage], activation_bytes[stage])


def bounds_text(found: Bounds) -> str:
    """Return everything for a terminal."""
    lines = [f"{found.model.name}: not measured; from published peaks (dense, not sparse) what no engine passes", ""]
    parts = [
        ("part", "G multiply-adds", "in", "MB of weights", "MB between operators"),
        *(_part(each) for each in found.works),
        _part(_total(found.works)),
    ]
    lines += aligned(parts)
    lines += ["", *_MEANING, ""]
    rows: list[tuple[str, ...]] = [("", "by compute", "by memory, all fused", "as engines fuse")]
    rows += [(each.gpu.name, *map(_rate, (each.compute, each.fused, each.usual))) for each in found.bounds]
    lines += aligned(rows)
    for each in found.measured:
        lines += ["", *_measured_lines(each, found.bounds)]
    if not found.measured:
        lines += ["", *_ADVICE]
    return "\n".join(lines)


_MEANING = (
    "frames a second of the network alone: no engine passes the first column, nor the second where no cache keeps the",
    "weights; the third is what memory allows where only elementwise operators are fused, near to what engines do",
)
_ADVICE = (
    "measure first, on the device and in its power mode:",
    "  1. the network alone:   sfpp-bench MODEL.engine --json device.json      (p50 ms, against the bounds above)",
    "  2. a frame with all around it, in the same file (frame ms): what is longer than the network is copies and CPU",
    "then:  sfpp-engine MODEL.onnx --bounds --measured device.json",
)


def _measured_lines(each: Measured, bounds: Sequence[Bound]) -> Iterator[str]:
    whole = f", {_rate(each.whole)} with all around it" if each.whole else ""
    yield f"measured: {_rate(each.network)} frames a second of the network alone{whole}, {each.where}"
    for bound in bounds:
        if bound.gpu.name == each.gpu:
            yield f"  {each.network / bound.compute:.0%} of what {each.gpu} cannot pass ({_rate(bound.compute)})"


def _part(work: Work) -> tuple[str, ...]:
    names = ", ".join(sorted(work.multiply_adds)) or "-"
    return (
        work.stage,
        f"{sum(work.multiply_adds.values()) / 1e9:.2f}",
        names,
        f"{work.weight_bytes / 1e6:.1f}",
        f"{work.activation_bytes / 1e6:.1f}",
    )


def _total(works: Sequence[Work]) -> Work:
    counts: Counter[str] = Counter()
    for each in works:
        counts.update(each.multiply_adds)
    sums = (sum(getattr(each, name) for each in works) for name in ("weight_bytes", "activation_bytes"))
    return Work("all", dict(counts), *sums)


def _rate(frames_per_s: float) -> str:
    return f"{frames_per_s:.1f}" if frames_per_s < 100 else f"{frames_per_s:.0f}"


def _stage(node: onnx.NodeProto) -> str:
    if found := _STAGE.search(name_of(node)):
        return f"stage {int(found[1]) + 1}"
    return "head" if name_of(node).startswith("head") else "rest"


def _stored_bytes(tensor: TensorProto) -> int:
    return int(math.prod(tensor.dims)) * _item_bytes(tensor.data_type)


def _item_bytes(kind: int) -> int:
    return int(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).itemsize)


def _types(graph: onnx.GraphProto) -> dict[str, int]:
    infos = (*graph.input, *graph.output, *graph.value_info)
    types = {each.name: each.type.tensor_type.elem_type for each in infos}
    types.update((each.name, each.data_type) for each in graph.initializer)
    return types


def _origin(name: str, writers: Mapping[str, onnx.NodeProto]) -> str:
    """Return the tensor that is read in memory where a builder reads through views, casts and quantization."""
    while (writer := writers.get(name)) is not None and writer.op_type in _THROUGH and writer.input:
        name = writer.input[0]
    return name


def _precision(node: onnx.NodeProto, writers: Mapping[str, onnx.NodeProto], types: Mapping[str, int]) -> Precision:
    if all(_is_quantized(name, writers) for name in node.input[:2]):
        return "int8"
    return "fp16" if types.get(node.input[0]) in (TensorProto.FLOAT16, TensorProto.BFLOAT16) else "fp32"


def _is_quantized(name: str, writers: Mapping[str, onnx.NodeProto]) -> bool:
    writer = writers.get(name)
    while writer is not None and writer.op_type in (*_THROUGH, _TRANSPOSED):
        if writer.op_type == "DequantizeLinear":
            return True
        writer = writers.get(writer.input[0])
    return False


def _measured(file: str | os.PathLike[str], model: Path, *, frames: int) -> Iterator[Measured]:
    """Yield all that a JSON of ``sfpp-bench`` says of a model, by the name that comes before the suffix."""
    where = Path(file).name
    content = json_from_file(Path(file), where=where, raising=UsageError)
    try:
        rows = [each for each in content["rows"] if each["network"]]
        names = [Path(each["model"]).stem for each in rows]
        machine = " ".join(str(content["machine"].get(name, "")) for name in ("board", "gpu"))
        found = [
            Measured(
                # A run takes a whole batch, and sfpp-bench gives it one frame.
                frames * _per_s(row["network"]),
                _per_s(row["whole"]) if row["whole"] and frames == 1 else None,
                f"{row['description']} ({where})",
                _gpu_in(f"{machine} {row['description']}"),
            )
            for row, name in zip(rows, names, strict=True)
            if name == model.stem
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{where} is no JSON of sfpp-bench (sfpp-bench MODEL.engine --json FILE)") from error
    if not found:
        shown = ", ".join(sorted(set(names))) or "nothing"
        raise UsageError(
            f"{where} has figures of {shown}, and the model is {model.stem}; measure an engine of this name"
        )
    yield from found


def _per_s(times: Mapping[str, float]) -> float:
    """Return runs a second.

    Raises:
        ValueError: it is no time.
    """
    if not 0 < times["p50_ms"] < math.inf:
        raise ValueError(times["p50_ms"])
    return 1e3 / times["p50_ms"]


def _gpu_in(text: str) -> str:
    return next((each.name for each in gpus() if each.match in text), "")
