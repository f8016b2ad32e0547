"""PyTorch's network with its insides compared with a graph's, and if wanted put in step with it.

In step, each value is replaced by the graph's as soon as it was compared. What differs at the next point was then made
between the two: an error stands where it arises, and later parts are judged by themselves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sfpp.export.parity.differences import Difference, difference, fitted_to
from sfpp.export.parity.points import Point

Seen = Mapping[str, NDArray[Any]]
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
    def compare(value: Tensor) -> None:
        mine = value if point.channels is None else value[..., : point.channels]
        graph = seen[point.name]
        if point.channels is not None:
            graph = graph[..., : point.channels]
        fitted = fitted_to(graph, mine)
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


def without_gradients(run: Callable[[], Tensor]) -> NDArray[np.float32]:
    """Run a network and return what it gives."""
    with torch.no_grad():
        result: NDArray[np.float32] = run().numpy()
    return result
