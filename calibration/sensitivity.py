"""How sensitive the parts of the network are to INT8, and which must stay out of it to keep the loss in bounds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sfpp.calibration.evaluate import Trials
from sfpp.calibration.int8.quantizable import Quantizable
from sfpp.calibration.results import Kept, Sensitivity

# INT8 for less than this part of the multiply-adds that could have it is no INT8: better take FP16 then.
LEAST_PART = 0.25


def by_block(products: Iterable[Quantizable]) -> dict[str, tuple[str, ...]]:
    """Return the names of the products of each block, in the order of the network."""
    blocks: dict[str, tuple[str, ...]] = {}
    for each in products:
        blocks[each.block] = (*blocks.get(each.block, ()), each.node)
    return blocks


def sensitivities(
    trials: Trials,
    groups: Mapping[str, Collection[str]],
    *,
    frames: int,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> tuple[Sensitivity, ...]:
    """Rank groups of nodes by what each costs when it alone is in INT8, the most sensitive first.

    Groups are ranked by the error of the logits: labels change too rarely to tell small losses apart.

    Args:
        trials: writes and evaluates candidates.
        groups: nodes by the name of the part that they make up.
        frames: how many held-out frames to look at.
        progress: called with how many groups were evaluated, of how many.
    """
    found = []
    for number, (name, nodes) in enumerate(groups.items(), 1):
        seen = trials.evaluate(nodes, first=frames)
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
    drop: float,
    frames: int,
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
        drop: what is lost with all nodes in INT8.
        frames: how many held-out frames to rank nodes by.
        notify: called with what is being tried.
    """
    if drop <= max_drop:
        return Fallback(tuple(work), (), drop, held=True, blocks=tuple(ranked))
    names = [each.name for each in ranked]
    worst = _Search(trials, work, [blocks[name] for name in names], max_drop, notify).fewest()
    if worst is None:
        return Fallback(tuple(work), (), drop, held=False, blocks=tuple(ranked))
    notify(f"looking into {worst.count} of {len(names)} blocks, node by node")
    suspects = {node: (node,) for name in names[: worst.count] for node in blocks[name]}
    nodes = sensitivities(trials, suspects, frames=frames)
    finer = _Search(trials, work, [(each.name,) for each in nodes], max_drop, notify).fewest() or worst
    kept = set(work) - set(finer.nodes)
    marked = tuple(replace(each, kept=bool(kept & set(blocks[each.name]))) for each in ranked)
    reasons = tuple(
        Kept(each.name, f"alone in INT8 it changes {each.disagreement:.2f} % of the predictions")
        for each in nodes
        if each.name in kept
    )
    suspected = tuple(replace(each, kept=each.name in kept) for each in nodes)
    return Fallback(finer.nodes, reasons, finer.drop, held=True, blocks=marked, suspects=suspected)


@dataclass(frozen=True)
class _Found:
    count: int
    nodes: tuple[str, ...]
    drop: float


class _Search:
    """Finds how many of the worst groups must be kept out of INT8.

    Keeping one more hardly ever loses more, so that bisection is right but for noise; what it returns was measured.
    """

    def __init__(
        self,
        trials: Trials,
        work: Mapping[str, int],
        groups: Sequence[Collection[str]],
        max_drop: float,
        notify: Callable[[str], object],
    ) -> None:
        self._trials = trials
        self._work = work
        self._groups = groups
        self._max_drop = max_drop
        self._notify = notify

    def fewest(self) -> _Found | None:
        """Return the fewest groups that will do; None if too little would be left in INT8."""
        most = self._most()
        best = self._try(most) if most else None
        if best is None or best.drop > self._max_drop:
            return None
        too_few = 0  # so many kept out lose too much
        while best.count - too_few > 1:
            found = self._try((too_few + best.count) // 2)
            if found.drop <= self._max_drop:
                best = found
            else:
                too_few = found.count
        return best

    def _most(self) -> int:
        """Return how many groups can be kept out before too little work is left in INT8."""
        total, left = sum(self._work.values()), sum(self._work.values())
        for count, nodes in enumerate(self._groups):
            left -= sum(self._work[node] for node in nodes)
            if left < LEAST_PART * total:
                return count
        return len(self._groups)

    def _try(self, count: int) -> _Found:
        kept = {node for nodes in self._groups[:count] for node in nodes}
        nodes = tuple(node for node in self._work if node not in kept)
        drop = self._trials.drop(nodes)
        self._notify(f"with {len(kept)} of {len(self._work)} products kept out of INT8, {drop:.2f} are lost")
        return _Found(count, nodes, drop)
