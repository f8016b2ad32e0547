"""How sensitive the parts of the network are to INT8, and which must stay out of it to keep the loss in bounds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sfpp.calibration.context import Trials
from sfpp.calibration.int8.quantizable import Quantizable
from sfpp.calibration.results import Kept, Sensitivity
from sfpp.tooling.graph import block_of

# Frames for what is asked of many candidates: enough to rank by, few enough to wait for.
FEW = 6
# INT8 for less than this part of the multiply-adds that could have it is no INT8: better take FP16 then.
LEAST_PART = 0.25


def by_block(products: Iterable[Quantizable]) -> dict[str, tuple[str, ...]]:
    """Return the names of the products of each block, in the order of the network."""
    blocks: dict[str, tuple[str, ...]] = {}
    for each in products:
        block = block_of(each.node)
        blocks[block] = (*blocks.get(block, ()), each.node)
    return blocks


def sensitivities(
    trials: Trials,
    groups: Mapping[str, Collection[str]],
    *,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> tuple[Sensitivity, ...]:
    """Rank groups of nodes by what each costs when it alone is in INT8, the most sensitive first.

    Groups are ranked by the error of the logits: labels change too rarely to tell small losses apart.

    Args:
        trials: writes and evaluates candidates.
        groups: nodes by the name of the part that they make up.
        progress: called with how many groups were evaluated, of how many.
    """
    found = []
    for number, (name, nodes) in enumerate(groups.items(), 1):
        seen = trials.evaluate(nodes, first=FEW)
        found.append(Sensitivity(name, len(nodes), disagreement=100 * (1 - seen.accuracy.agreement), error=seen.error))
        progress(number, len(groups))
    return tuple(sorted(found, key=lambda each: -each.error))


@dataclass(frozen=True)
class Fallback:
    """Which nodes are in INT8 in the end.

    Attributes:
        nodes: those that are.
        kept: the parts that are not, with the reason.
        drop: what is lost.
        held: whether that is within the budget.
        blocks: the blocks, the most sensitive first, marked where something of them is kept.
        suspects: the nodes of the blocks that were looked into, likewise.
    """

    nodes: tuple[str, ...]
    kept: tuple[Kept, ...]
    drop: float
    held: bool
    blocks: tuple[Sensitivity, ...]
    suspects: tuple[Sensitivity, ...] = ()


def within_budget(
    trials: Trials,
    work: Mapping[str, int],
    blocks: Mapping[str, tuple[str, ...]],
    ranked: Sequence[Sensitivity],
    *,
    max_drop: float,
    notify: Callable[[str], object] = lambda line: None,
) -> Fallback:
    """Keep as few nodes as possible out of INT8 so that no more than ``max_drop`` is lost.

    First the fewest of the worst blocks that will do are found, by bisection; then, within these, the fewest of the
    worst nodes.

    Args:
        trials: writes and evaluates candidates.
        work: multiply-adds by node, of all nodes that can be INT8.
        blocks: the nodes of each block.
        ranked: the blocks, the most sensitive first.
        max_drop: what may be lost, in points or per cent.
        notify: called with what is being tried.
    """
    drop = trials.drop(tuple(work))
    if drop <= max_drop:
        return Fallback(tuple(work), (), drop, held=True, blocks=tuple(ranked))

    def drop_without(kept: Collection[str]) -> float:
        lost = trials.drop(tuple(node for node in work if node not in kept))
        notify(f"with {len(kept)} of {len(work)} products kept out of INT8, {lost:.2f} are lost")
        return lost

    names = [each.name for each in ranked]
    worst = _fewest([blocks[name] for name in names], work, drop_without, max_drop)
    if worst is None:
        return Fallback(tuple(work), (), drop, held=False, blocks=tuple(ranked))
    notify(f"looking into {worst.count} of {len(names)} blocks, node by node")
    suspects = {node: (node,) for name in names[: worst.count] for node in blocks[name]}
    nodes = sensitivities(trials, suspects)
    finer = _fewest([(each.name,) for each in nodes], work, drop_without, max_drop) or worst
    kept = finer.kept
    marked = tuple(replace(each, kept=bool(kept & set(blocks[each.name]))) for each in ranked)
    reasons = tuple(
        Kept(each.name, f"alone in INT8 it changes {each.disagreement:.2f} % of the predictions")
        for each in nodes
        if each.name in kept
    )
    suspected = tuple(replace(each, kept=each.name in kept) for each in nodes)
    left = tuple(node for node in work if node not in kept)
    return Fallback(left, reasons, finer.drop, held=True, blocks=marked, suspects=suspected)


@dataclass(frozen=True)
class _Found:
    """So many of the worst groups are kept out of INT8, which are these nodes, and this is lost."""

    count: int
    kept: frozenset[str]
    drop: float


def _fewest(
    groups: Sequence[Collection[str]],
    work: Mapping[str, int],
    drop_without: Callable[[Collection[str]], float],
    max_drop: float,
) -> _Found | None:
    """Return the fewest of the worst groups that will do; None if too little would be left in INT8.

    Keeping one more hardly ever loses more, so that bisection is right but for noise; what it returns was measured.
    """

    def without(count: int) -> _Found:
        kept = frozenset(node for nodes in groups[:count] for node in nodes)
        return _Found(count, kept, drop_without(kept))

    left = sum(work.values()) - np.cumsum([sum(work[node] for node in nodes) for nodes in groups])
    most = int(np.count_nonzero(left >= LEAST_PART * sum(work.values())))
    best = without(most) if most else None
    if best is None or best.drop > max_drop:
        return None
    too_few = 0  # so many kept out lose too much
    while best.count - too_few > 1:
        found = without((too_few + best.count) // 2)
        if found.drop <= max_drop:
            best = found
        else:
            too_few = found.count
    return best
