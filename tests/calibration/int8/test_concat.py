"""Concat as a sum of padded tensors: the same values, of every type that a graph may join."""

import numpy as np
import pytest

from sfpp.calibration.int8.int8_model import without_concat
from tests.calibration.int8.int8_graphs import assert_valid, model_of, operators, outputs_of

RNG = np.random.default_rng(17)


def joined(parts, axis):
    """A graph that joins its inputs, with their sizes at hand."""
    names = [f"x{index}" for index in range(len(parts))]
    model = model_of(
        [("Concat", names, ["all"], {"axis": axis}), ("Relu", ["all"], ["answer"], {})],
        inputs=dict(zip(names, map(list, parts), strict=True)),
        outputs={"answer": None},
    )
    frames = {name: RNG.normal(0, 1e3, shape).astype(np.float32) for name, shape in zip(names, parts, strict=True)}
    return model, frames


@pytest.mark.parametrize(
    ("parts", "axis"),
    [
        ([(1, 3, 4), (1, 2, 4)], 1),
        ([(1, 3, 4), (1, 3, 1)], -1),
        ([(2, 3), (1, 3), (4, 3)], 0),
        ([(1, 3, 2, 2), (1, 1, 2, 2), (1, 2, 2, 2), (1, 5, 2, 2)], -3),
        ([(2, 3)], 1),
    ],
)
def test_not_a_bit_changes(parts, axis):
    model, frames = joined(parts, axis)
    (expected,) = outputs_of(model, **frames)
    without_concat(model)
    assert_valid(model)
    assert operators(model, "Concat") == 0
    (answer,) = outputs_of(model, **frames)
    np.testing.assert_array_equal(answer, expected)


@pytest.mark.parametrize("kind", [np.int64, np.int32, bool])
def test_integers_and_truth_values(kind):
    parts = {"a": RNG.integers(-(2**30), 2**30, (2, 3)), "b": RNG.integers(0, 2, (2, 1))}
    first, second = (values.astype(kind) for values in parts.values())
    model = model_of(
        [
            ("Concat", ["first", "second"], ["all"], {"axis": 1}),
            ("Cast", ["all"], ["floats"], {"to": 1}),
            ("Mul", ["x", "floats"], ["answer"], {}),
        ],
        inputs={"x": [1]},
        outputs={"answer": [2, 4]},
        constants={"first": first, "second": second},
    )
    without_concat(model)
    assert_valid(model)
    assert operators(model, "Concat") == 0
    (answer,) = outputs_of(model, x=np.ones(1, np.float32))
    np.testing.assert_array_equal(answer, np.concatenate([first, second], axis=1).astype(np.float32))


def test_one_concat_behind_another():
    model, frames = joined([(1, 2), (1, 3)], 1)
    model = model_of(
        [
            ("Concat", ["x0", "x1"], ["inner"], {"axis": 1}),
            ("Concat", ["inner", "x0"], ["all"], {"axis": 1}),
            ("Relu", ["all"], ["answer"], {}),
        ],
        inputs={"x0": [1, 2], "x1": [1, 3]},
        outputs={"answer": [1, 7]},
    )
    without_concat(model)
    assert_valid(model)
    (answer,) = outputs_of(model, **frames)
    whole = np.concatenate([frames["x0"], frames["x1"], frames["x0"]], axis=1)
    np.testing.assert_array_equal(answer, np.maximum(whole, 0))
