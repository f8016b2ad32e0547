"""Differences against plain arithmetic, and PyTorch in step with values from elsewhere."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sfpp.export.parity.differences import Place, difference, fitted_to, observed
from sfpp.export.parity.points import Point


@pytest.fixture
def values():
    return torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(4))


def test_the_relative_error_and_the_place(values):
    graph = values.clone()
    graph[1, 4, 3] += 7
    graph[0, 0, 0] -= 1
    found = difference(graph, values, (2, 3))
    rms = np.sqrt(np.mean((graph - values).numpy() ** 2.0)) / np.sqrt(np.mean(values.numpy() ** 2.0))
    assert found.relative == pytest.approx(rms, rel=1e-5)
    assert found.largest == pytest.approx(7)
    assert found.place == Place(batch=1, channel=3, row=1, column=1)
    assert str(found.place) == "frame 1 of the batch, channel 3, row 1, column 1"
    assert found.gain is None
    assert difference(graph, values).place == Place(batch=1, channel=3, token=4)
    image = graph.transpose(1, 2).reshape(2, 5, 2, 3)
    assert difference(image, values.transpose(1, 2).reshape(2, 5, 2, 3)).place == found.place


def test_a_gain_is_told_where_it_is_all_there_is(values):
    assert difference(2 * values, values).gain == pytest.approx(2)
    assert difference(2 * values, values).relative == pytest.approx(1)
    noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(5))
    assert difference(2 * values + 0.1 * noise, values).gain == pytest.approx(2, abs=0.1)
    assert difference(values + noise, values).gain is None
    assert difference(values, values).gain is None


def test_what_a_part_adds_is_judged_by_what_it_adds(values):
    base = 10 * torch.randn(values.shape, generator=torch.Generator().manual_seed(6))
    alone = difference(base + 2 * values, base + values, base=base)
    assert alone.relative == pytest.approx(1, rel=1e-4)
    assert alone.gain == pytest.approx(2, rel=1e-4)
    assert difference(base + 2 * values, base + values).relative < 0.2
    # A part that adds next to nothing is not held to it.
    tiny = difference(base + 2e-4 * values, base + 1e-4 * values, base=base)
    assert tiny.relative < 1e-3


def test_equal_zero_and_unlike_zero():
    nothing = torch.zeros(1, 3, 4)
    assert difference(nothing, nothing).relative == 0
    assert difference(nothing + 1, nothing).relative == math.inf


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite(values, odd):
    graph = values.clone()
    graph[0, 2, 4] = odd
    found = difference(graph, values, (2, 3))
    assert not found.finite
    assert math.isnan(found.relative)
    assert found.place == Place(0, 4, 0, 2)


def test_layouts_are_fitted():
    image = torch.arange(24.0).reshape(1, 2, 3, 4)
    tokens = image.flatten(2).transpose(1, 2)
    assert torch.equal(fitted_to(image.numpy(), tokens), tokens)
    assert torch.equal(fitted_to(tokens.numpy(), image), image)
    assert torch.equal(fitted_to(tokens.numpy().astype(np.float16), tokens), tokens)
    assert fitted_to(image.numpy(), tokens[:, 1:]) is None


class Residual(nn.Module):
    """Two layers that each add to a stream, as a block does."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(5, 5), nn.Identity(), nn.Linear(5, 5)

    def forward(self, tokens):
        tokens = tokens + self.first(tokens)
        return tokens + self.second(self.norm(tokens))


POINTS = [Point("first", "norm", "input", "", grid_hw=(2, 3)), Point("second", "", "output", "", base="first")]


def test_in_step_an_error_stands_where_it_arises(values):
    network = Residual().eval()
    faulty = Residual().eval()
    faulty.load_state_dict(network.state_dict())
    with torch.no_grad():
        faulty.first.weight.mul_(2)
        faulty.first.bias.mul_(2)
        middle = values + faulty.first(values)
        seen = {"first": middle.numpy(), "second": faulty(values).numpy()}
        expected = network(values)
        results = {}
        for in_step in (False, True):
            with observed(network, POINTS, seen, in_step=in_step) as found:
                answer = network(values.clone())
            results[in_step] = found
        assert torch.allclose(answer, faulty(values))  # in step, PyTorch ends where the graph does
        assert torch.equal(network(values), expected)  # and is what it was afterwards
    assert results[False]["first"].relative > 0.1
    assert results[False]["second"].relative > 0.1
    assert results[True]["first"].relative > 0.1
    assert results[True]["second"].relative < 1e-6


def test_a_scaled_value(values):
    network = Residual().eval()
    with torch.no_grad():
        doubled = 2 * network.first(values)
        point = Point("first", "first", "output", "", scale=2.0)
        with observed(network, [point], {"first": doubled.numpy()}, in_step=True) as found:
            network(values.clone())
    assert found["first"].relative < 1e-6


def test_a_value_of_another_size_is_infinitely_wrong(values):
    network = Residual().eval()
    with torch.no_grad(), observed(network, POINTS[:1], {"first": np.zeros((2, 4, 5))}, in_step=True) as found:
        network(values.clone())
    assert found["first"].relative == math.inf
    assert found["first"].place is None
