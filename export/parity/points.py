"""Where a graph and PyTorch can be compared: the values that both of them compute.

A graph made here keeps the modules' paths in its nodes' names, so the counterpart of each value is found by name: what
``encoder.stages.0.blocks.1`` gives is what the node ``encoder/stages.0/blocks.1/Add_1`` gives. Rewriting for the graph
changes some values (a scale that is folded into a weight); those have a note here or are left out.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn

from sfpp.export.deployable import Network
from sfpp.export.models import edaformer, segformer
from sfpp.export.models.recipe import GridHw, MergingRecipe, Recipe

Side = Literal["input", "output"]
LOGITS = "logits"
INPUT = "input"
_TOKEN_BLOCKS = (segformer.Block, edaformer.Block)
_ATTENTIONS = (segformer.Attention, edaformer.Attention)


@dataclass(frozen=True)
class Point:
    """A value that both sides compute.

    Attributes:
        name: for people, such as ``stages.0/blocks.1/ffn``.
        module: PyTorch's module, by its path in the network.
        side: whether the module takes the value or gives it.
        node: the graph's node, or none for the logits, which are found from the graph's output.
        node_side: whether the node takes the value, as its first input, or gives it.
        parts: the value lies in several nodes, channel after channel: ``node``, ``node_1``, ``node_2``.
        grid_hw: rows and columns of the tokens, None where they have no grid (merged ones).
        scale: the graph's value is PyTorch's times this.
        lasting: later parts need the value too, not only the next one.
        base: the point whose value this one's part adds to; none where it makes a value of its own.
        detail: it lies inside a part that ends at a coarse point.
    """

    name: str
    module: str
    side: Side
    node: str
    node_side: Side = "output"
    parts: bool = False
    grid_hw: GridHw | None = None
    scale: float = 1.0
    lasting: bool = False
    base: str = ""
    detail: bool = False


def coarse_points(model: Network, recipe: Recipe, size_hw: GridHw) -> list[Point]:
    """Return the points of the whole network, in its order: two a block, and those between the blocks.

    Args:
        model: the learned network.
        recipe: what it merges; a step of the input makes all grids smaller.
        size_hw: height and width of the image.
    """
    return list(_coarse(model, _stage_grids(model, recipe, size_hw)))


def all_points(model: Network, recipe: Recipe, size_hw: GridHw) -> list[Point]:
    """Return the coarse points and, before each, those inside the part that ends there: every layer."""
    grids = _stage_grids(model, recipe, size_hw)
    fine = list(_fine(model, grids))
    points: list[Point] = []
    for end in _coarse(model, grids):
        points += [point for point in fine if point.name.startswith(f"{end.name}/")]
        points.append(end)
    return points


def survives_equalizing(name: str) -> bool:
    """Return whether a point's value is the same after channels were brought to like sizes for INT8.

    What norms and inner convolutions give is then another value by powers of two, and what reads it takes that back:
    the stream of tokens between the parts, and the logits, stay as they are.
    """
    return name in (INPUT, LOGITS) or name.rpartition("/")[2] in ("patch_embed", "attention", "ffn")


def part_of(name: str) -> str:
    """Return the name of the part that a point lies in: that of a layer's block and half, its own for a part."""
    return re.sub(r"(/(?:attention|ffn|patch_embed))/.*", r"\1", name)


def first_of_parts(names: Iterable[str]) -> list[str]:
    """Return of each part, with the layers inside, the first of the names; their order stays."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(part_of(name), name)
    return list(first.values())


def node_path(module: str) -> str:
    """Return a module's path as the nodes' names spell it: the items of lists stay with the list."""
    return re.sub(r"\.(?!\d)", "/", module)


def _stage_grids(model: Network, recipe: Recipe, size_hw: GridHw) -> tuple[GridHw, ...]:
    step = recipe.input_step if isinstance(recipe, MergingRecipe) else 1
    return model.config.encoder.stage_grids((size_hw[0] // step, size_hw[1] // step))


def _coarse(model: Network, grids: tuple[GridHw, ...]) -> Iterator[Point]:
    first = "encoder.stages.0.patch_embed.projection"
    yield Point(INPUT, first, "input", f"{node_path(first)}/Conv", "input")
    for number, grid_hw in enumerate(grids):
        stage = f"encoder.stages.{number}"
        embedding = _norm_point(f"{stage}.patch_embed", f"{stage}.patch_embed.norm", grid_hw)
        yield embedding
        yield from _block_points(model, f"{stage}.", grid_hw, base=embedding.name)
        yield _norm_point(f"{stage}.norm", f"{stage}.norm", grid_hw, lasting=True)
    yield from _head_points(model, grids)
    yield Point(LOGITS, "head.classifier", "output", "")


def _blocks(model: Network, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the path and the module of each transformer block below ``prefix``, in network order."""
    for path, module in model.named_modules():
        if isinstance(module, _TOKEN_BLOCKS) and path.startswith(prefix):
            yield path, module


def _norm_point(name: str, module: str, grid_hw: GridHw | None, *, lasting: bool = False) -> Point:
    node = f"{node_path(module)}/LayerNormalization"
    return Point(_shown(name), module, "output", node, grid_hw=grid_hw, lasting=lasting)


def _block_points(model: Network, prefix: str, grid_hw: GridHw, *, base: str, lasting: bool = False) -> Iterator[Point]:
    """Yield two points for each block below ``prefix``; the first block adds to the value at ``base``."""
    for path, _ in _blocks(model, prefix):
        name, node = _shown(path), node_path(path)
        attention, ffn = f"{name}/attention", f"{name}/ffn"
        # What comes out of the first addition is what the second norm takes.
        yield Point(attention, f"{path}.norm2", "input", f"{node}/Add", grid_hw=grid_hw, base=base)
        yield Point(ffn, path, "output", f"{node}/Add_1", grid_hw=grid_hw, base=attention, lasting=lasting)
        base = ffn


def _head_points(model: Network, grids: tuple[GridHw, ...]) -> Iterator[Point]:
    head = model.head
    if isinstance(head, edaformer.Decoder):
        for level, grid_hw in enumerate(grids[1:]):
            base = f"stages.{level + 1}/norm"
            yield from _block_points(model, f"head.stages.{level}.", grid_hw, base=base, lasting=True)
        yield Point("head/fusion", "head.fusion", "output", "head/fusion/Relu", parts=True)
        return
    for number, unit in enumerate(head.projections):
        assert isinstance(unit, segformer.ConvUnit)
        if unit.bn is not None:  # a linear projection is one matrix with the fusion in the graph
            path = f"head.projections.{number}"
            node = f"{node_path(path)}/projections.{number}.1/Relu"
            yield Point(_shown(path), path, "output", node, lasting=True)
    yield Point("head/fusion", "head.fusion", "output", "head/Relu", parts=True)


def _fine(model: Network, grids: tuple[GridHw, ...]) -> Iterator[Point]:
    return (dataclasses.replace(point, detail=True) for point in _layers(model, grids))


def _layers(model: Network, grids: tuple[GridHw, ...]) -> Iterator[Point]:
    for number, grid_hw in enumerate(grids):
        path = f"encoder.stages.{number}.patch_embed.projection"
        yield Point(_shown(path), path, "output", f"{node_path(path)}/Conv", grid_hw=grid_hw)
    for path, block in _blocks(model, ""):
        attention = block.attention
        assert isinstance(attention, _ATTENTIONS)
        grid_hw = _grid_of(path, grids)
        # The norm belongs to the part behind it, whose point's name must be its prefix.
        yield _norm_point(f"{path}.attention.norm1", f"{path}.norm1", grid_hw)
        if isinstance(attention, segformer.Attention):
            yield from _segformer_attention(f"{path}.attention", attention, grid_hw)
        else:
            yield from _edaformer_attention(f"{path}.attention", attention)
        yield _norm_point(f"{path}.ffn.norm2", f"{path}.norm2", grid_hw)
        for layer in ("expand", "depthwise", "contract"):
            module = f"{path}.ffn.{layer}"
            yield Point(_shown(module), module, "output", f"{node_path(module)}/Conv", grid_hw=grid_hw)


def _segformer_attention(path: str, attention: segformer.Attention, grid_hw: GridHw) -> Iterator[Point]:
    name, node = _shown(path), node_path(path)
    if attention.reduction_ratio > 1:
        reduced = segformer.reduced_grid(grid_hw, attention.reduction_ratio)
        module = f"{path}.reduction"
        yield Point(_shown(module), module, "output", f"{node}/reduction/Conv", grid_hw=reduced)
        yield _norm_point(f"{path}.reduction_norm", f"{path}.reduction_norm", reduced)
    yield Point(f"{name}/merging of queries", f"{path}.query", "input", f"{node}/query/MatMul", "input")
    yield Point(f"{name}/merging of keys and values", f"{path}.key_value", "input", f"{node}/key_value/MatMul", "input")
    # The graph has 1 / sqrt(head width) in its query projection.
    yield Point(f"{name}/query", f"{path}.query", "output", f"{node}/query/Add", scale=attention.scale)
    yield Point(f"{name}/key_value", f"{path}.key_value", "output", f"{node}/key_value/Add")
    yield Point(f"{name}/softmax and products", f"{path}.output", "input", f"{node}/attended")
    yield Point(f"{name}/output", f"{path}.output", "output", f"{node}/output/Add")


def _edaformer_attention(path: str, attention: edaformer.Attention) -> Iterator[Point]:
    name, node = _shown(path), node_path(path)
    yield Point(f"{name}/key_value", f"{path}.key_value", "output", f"{node}/key_value/Conv")
    if attention.key_value_norm is not None:
        yield _norm_point(f"{path}.key_value_norm", f"{path}.key_value_norm", None)
    yield Point(f"{name}/softmax and products", f"{path}.output", "input", f"{node}/attended")
    yield Point(f"{name}/output", f"{path}.output", "output", f"{node}/output/Add")


def _grid_of(path: str, grids: tuple[GridHw, ...]) -> GridHw:
    match = re.search(r"stages\.(\d+)", path)
    assert match is not None
    return grids[int(match[1]) + path.startswith("head.")]


def _shown(module: str) -> str:
    """Return a path for people, who need not be told that stages are the encoder's."""
    return node_path(module).removeprefix("encoder/")
