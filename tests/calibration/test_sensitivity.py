"""What is kept out of INT8: the least that will do, and only what was measured."""

from types import SimpleNamespace

import pytest

from sfpp.calibration.evaluate import Evaluation
from sfpp.calibration.sensitivity import by_block, sensitivities, within_budget
from sfpp.tooling.metrics import Accuracy

# Blocks a, b, c of two nodes each; what each node costs in INT8, in points. They add up.
COSTS = {"a/1": 0.1, "a/2": 0.0, "b/1": 2.0, "b/2": 0.05, "c/1": 0.0, "c/2": 0.6}
BLOCKS = {name: (f"{name}/1", f"{name}/2") for name in "abc"}
WORK = dict.fromkeys(COSTS, 100)


class Costly:
    """Trials whose losses add up."""

    def __init__(self, costs):
        self.costs = costs
        self.tried = []

    def evaluate(self, nodes, *, first=None):
        loss = sum(self.costs[node] for node in nodes)
        return Evaluation(Accuracy(agreement=1 - loss / 100), error=loss**2, disagreement={})

    def drop(self, nodes):
        self.tried.append(frozenset(nodes))
        return sum(self.costs[node] for node in nodes)


def budget(max_drop, costs=COSTS, work=WORK):
    trials = Costly(costs)
    ranked = sensitivities(trials, BLOCKS)
    return within_budget(trials, work, BLOCKS, ranked, max_drop=max_drop), trials


def test_blocks_are_in_the_order_of_the_network():
    products = [
        SimpleNamespace(node=f"{block}/{index}", block=block) for block, index in (("x", 0), ("h", 1), ("x", 2))
    ]
    assert by_block(products) == {"x": ("x/0", "x/2"), "h": ("h/1",)}


def test_the_most_sensitive_comes_first_with_what_it_does():
    ranked = sensitivities(Costly(COSTS), BLOCKS)
    assert [each.name for each in ranked] == ["b", "c", "a"]
    assert ranked[0].disagreement == pytest.approx(2.05)
    assert ranked[0].error == pytest.approx(2.05**2)
    assert ranked[0].nodes == 2


def test_nothing_is_kept_where_the_budget_holds_anyhow():
    found, _ = budget(3.0)
    assert found.held
    assert set(found.nodes) == set(COSTS)
    assert not found.kept


@pytest.mark.parametrize(("max_drop", "kept"), [(1.0, {"b/1"}), (0.5, {"b/1", "c/2"}), (0.1, {"b/1", "c/2", "b/2"})])
def test_the_fewest_nodes_are_kept_that_will_do(max_drop, kept):
    found, _ = budget(max_drop)
    assert found.held
    assert set(COSTS) - set(found.nodes) == kept
    assert {each.name for each in found.kept} == kept
    assert found.drop <= max_drop
    assert {each.name for each in (*found.blocks, *found.suspects) if each.kept} >= kept


def test_what_is_returned_was_measured():
    found, trials = budget(0.5)
    assert frozenset(found.nodes) in trials.tried
    assert found.drop == pytest.approx(sum(COSTS[node] for node in found.nodes))


def test_a_reason_tells_what_the_node_does_alone():
    found, _ = budget(1.0)
    assert found.kept[0].reason == "alone in INT8 it changes 2.00 % of the predictions"


def test_it_says_when_too_little_would_be_left():
    everywhere = dict.fromkeys(COSTS, 1.0)
    found, trials = budget(0.5, everywhere)
    assert not found.held
    assert set(found.nodes) == set(COSTS)  # the file with all of them: nothing is pretended
    assert min(len(each) for each in trials.tried) >= 2  # a quarter of the work stays in INT8


def test_work_counts_by_multiply_adds():
    """One node is nearly all of the work: without it nothing worth the name would be in INT8."""
    heavy = {**WORK, "b/1": 10_000}
    found, _ = budget(0.5, work=heavy)
    assert not found.held
