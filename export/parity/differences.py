"""How far a graph's values are from PyTorch's, and where they are farthest; measured while PyTorch runs.

In step, each value is replaced by the graph's as soon as it was compared. What differs at the next point was then made
between the two: an error stands where it arises, and later parts are measured by themselves.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sfpp.export.models.recipe import GridHw
from sfpp.export.parity.points import Point

# A gain is worth telling if it accounts for nearly all of the difference.
_GAIN_EXPLAINS = 0.95
# What a part adds is measured against at least this much of the whole: a block that adds next to nothing may do so with
# any error. Measured in trained networks: 0.1 to 0.8.
_LEAST_ADDED = 0.05
Seen = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Place:
    """One element: ``row`` and ``column`` on a grid, or ``token`` where tokens have none."""

    batch: int
    channel: int
    row: int | None = None
    column: int | None = None
    token: int | None = None

    def __str__(self) -> str:
        where = f"token {self.token}" if self.row is None else f"row {self.row}, column {self.column}"
        batch = f"frame {self.batch} of the batch, " if self.batch else ""
        return f"{batch}channel {self.channel}, {where}"


@dataclass(frozen=True)
class Difference:
    """How two arrays differ.

    Attributes:
        relative: root mean square of the difference over that of PyTorch's values.
        largest: the largest absolute difference.
        place: where that is.
        gain: the factor by which PyTorch's values come nearest to the graph's, where it accounts for the difference;
            else None.
        finite: whether the graph's values are neither NaN nor infinite.

    Where a part adds to what it takes, the values are what it adds.
    """

    relative: float
    largest: float
    place: Place | None = None
    gain: float | None = None
    finite: bool = True


def difference(
    graph: Tensor, pytorch: Tensor, grid_hw: GridHw | None = None, *, base: Tensor | None = None
) -> Difference:
    """Compare values of equal shape, (batch, channels, rows, columns) or tokens (batch, N, channels) over a grid.

    Args:
        graph: the graph's values, float32.
        pytorch: PyTorch's.
        grid_hw: rows and columns of the tokens.
        base: what both have added to; None compares the values as a whole.
    """
    finite = torch.isfinite(graph)
    if not bool(finite.all()):
        return Difference(math.nan, math.nan, _place(~finite, grid_hw), finite=False)
    whole = _square_sum(pytorch)
    if base is not None:
        graph, pytorch = graph - base, pytorch - base
    apart = graph - pytorch
    error, total = _square_sum(apart), _square_sum(pytorch)
    reference = max(total, whole * _LEAST_ADDED**2)
    relative = math.sqrt(error / reference) if reference else (math.inf if error else 0.0)
    gain = _gain(graph, pytorch, error=error, total=total)
    largest = apart.abs_()
    return Difference(relative, float(largest.max()), _place(largest, grid_hw), gain)


def fitted_to(graph: NDArray[Any], pytorch: Tensor) -> Tensor | None:
    """Return the graph's value as float32 in the layout of PyTorch's; None where the sizes do not fit.

    A feed-forward network works on images (batch, channels, rows, columns) in the graph and on tokens (batch, N,
    channels) in PyTorch.
    """
    values = torch.from_numpy(np.ascontiguousarray(graph, np.float32))
    if values.ndim == 4 and pytorch.ndim == 3:
        values = values.flatten(2).transpose(1, 2)
    elif values.ndim == 3 and pytorch.ndim == 4 and values.numel() == pytorch.numel():
        values = values.transpose(1, 2).reshape(pytorch.shape)
    return values if values.shape == pytorch.shape else None


def _square_sum(values: Tensor) -> float:
    # Rows of the last axis are summed in float32, their sums in float64: the sum over a large map in float32 would be
    # off by more than the differences looked for, and the map in float64 would be twice as large.
    return float(values.square().sum(-1).sum(dtype=torch.float64))


def _gain(graph: Tensor, pytorch: Tensor, *, error: float, total: float) -> float | None:
    """Return the least-squares factor from PyTorch's to the graph's values, if little of the difference is left."""
    if not error or not total:
        return None
    factor = float((graph * pytorch).sum(-1).sum(dtype=torch.float64)) / total
    left = error - (factor - 1) ** 2 * total
    return factor if left <= (1 - _GAIN_EXPLAINS) * error else None


def _place(values: Tensor, grid_hw: GridHw | None) -> Place:
    """Return where the largest value stands."""
    index = [int(each) for each in np.unravel_index(int(values.flatten().float().argmax()), tuple(values.shape))]
    if values.ndim == 4:
        return Place(index[0], index[1], index[2], index[3])
    batch, token, channel = (*index, 0, 0)[:3]
    if grid_hw is None:
        return Place(batch, channel, token=token)
    row, column = divmod(token, grid_hw[1])
    return Place(batch, channel, row, column)


@dataclass(frozen=True)
class OutputError:
    """How far logits or heatmaps are from PyTorch's; ``relative`` is of root mean squares."""

    relative: float
    largest: float
    mean: float
    scale: float


def output_error(output: NDArray[Any], expected: NDArray[Any]) -> OutputError:
    """Return how far an output is from PyTorch's; all NaN where it holds one."""
    apart = output.astype(np.float32, copy=False) - expected
    # In float64: the squares of a float16 overflow, and a sum of millions of float32 loses digits.
    square = float(np.square(apart, dtype=np.float64).mean())
    reference = float(np.square(expected, dtype=np.float64).mean())
    relative = float(np.sqrt(square / reference)) if reference else float("inf")
    np.abs(apart, out=apart)
    return OutputError(relative, float(apart.max()), float(apart.mean()), float(np.abs(expected).max()))


Compared = dict[str, Difference]


@contextlib.contextmanager
def observed(network: nn.Module, points: Sequence[Point], seen: Seen, *, in_step: bool) -> Iterator[Compared]:
    """Compare what the network computes within this context with what the graph has computed.

    Args:
        network: the learned network; it is left as it was.
        points: what to compare.
        seen: the graph's values by the points' names; a point that is not among them is left out.
        in_step: whether PyTorch goes on with the graph's values.

    Yields:
        The differences by the points' names, filled while the network runs. Values of different sizes have infinite
        ones.
    """
    found: Compared = {}
    modules = dict(network.named_modules())
    with contextlib.ExitStack() as hooks:
        for point in points:
            if point.name in seen and point.module in modules:
                module = modules[point.module]
                hooks.callback(_hooked(module, point, _comparer(point, seen, found, in_step=in_step)).remove)
        yield found


def _hooked(module: nn.Module, point: Point, compare: Callable[[Tensor], None]) -> RemovableHandle:
    if point.side == "input":
        return module.register_forward_pre_hook(lambda _, inputs: compare(inputs[0]))
    # SegFormer's blocks give their matchings besides.
    return module.register_forward_hook(
        lambda _, inputs, output: compare(output[0] if isinstance(output, tuple) else output)
    )


def _comparer(point: Point, seen: Seen, found: Compared, *, in_step: bool) -> Callable[[Tensor], None]:
    def compare(mine: Tensor) -> None:
        fitted = fitted_to(seen[point.name], mine)
        if fitted is None:
            found[point.name] = Difference(np.inf, np.inf)
            return
        fitted = fitted if point.scale == 1.0 else fitted / point.scale
        # Only in step have both sides added to the same.
        base = fitted_to(seen[point.base], mine) if in_step and point.base in seen else None
        found[point.name] = difference(fitted, mine, point.grid_hw, base=base)
        if in_step:
            # In place, since the block adds to the very tensor that its norm takes.
            mine.copy_(fitted)

    return compare
