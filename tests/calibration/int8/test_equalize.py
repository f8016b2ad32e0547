"""Channels of like size, and the same function to the bit."""

import math

import numpy as np
import pytest

from sfpp.calibration.int8.equalize import equalized, factors_for
from sfpp.calibration.int8.int8_model import int8_model
from sfpp.calibration.int8.observe import channel_magnitudes, observe
from sfpp.calibration.int8.quantizable import quantizable
from sfpp.calibration.int8.ranges import range_of
from sfpp.runtime.errors import BackendError, UsageError
from tests.calibration.int8.int8_graphs import assert_valid, initializers, model_of, outputs_of, weight

CHANNELS = 8
# Two channels stand out, as they do in trained transformers, and one is dead.
SIZES = np.array([1, 1.5, 40, 0.7, 1, 25, 0, 1.2], np.float32)


def tensor_of(model, name, frame):
    asked = type(model)()
    asked.CopyFrom(model)
    del asked.graph.output[:]
    asked.graph.output.extend(each for each in model.graph.value_info if each.name == name)
    return outputs_of(asked, **frame)[0]


def network(nodes, outputs, **constants):
    """A norm with channels of unlike sizes, ``normed`` (1, 24, 8), and the nodes that follow it."""
    norm = ("LayerNormalization", ["x", "gain", "shift"], ["normed"], {"axis": -1})
    return model_of(
        [norm, *nodes],
        inputs={"x": [1, 24, CHANNELS]},
        outputs=outputs,
        constants={"gain": SIZES, "shift": SIZES * weight(CHANNELS, rng=np.random.default_rng(3)), **constants},
    )


FFN = [
    ("Transpose", ["normed"], ["turned"], {"perm": [0, 2, 1]}),
    ("Reshape", ["turned", "shape"], ["image"], {}),
    ("Conv", ["image", "expand", "expand_bias"], ["hidden"], {}),
    ("Conv", ["hidden", "depthwise"], ["mixed"], {"group": 12, "pads": [1, 1, 1, 1]}),
    ("Relu", ["mixed"], ["active"], {}),
    ("Conv", ["active", "contract"], ["narrow"], {}),
    ("MatMul", ["normed", "query"], ["queries"], {}),
    ("Relu", ["narrow"], ["answer"], {}),
    ("Relu", ["queries"], ["other"], {}),
]
FFN_OUTPUTS = {"answer": [1, 5, 4, 6], "other": [1, 24, 3]}


@pytest.fixture
def ffn():
    rng = np.random.default_rng(13)
    spread = np.exp(rng.normal(0, 2, (12, 1, 1, 1))).astype(np.float32)
    loud = np.where(np.arange(12) == 3, 50, 1).astype(np.float32).reshape(12, 1, 1, 1)
    return network(
        FFN,
        FFN_OUTPUTS,
        shape=np.array([1, CHANNELS, 4, 6], np.int64),
        expand=weight(12, CHANNELS, 1, 1, rng=rng) * spread,
        expand_bias=weight(12, rng=rng) * spread.ravel(),
        depthwise=weight(12, 1, 3, 3, rng=rng) * loud / spread,
        contract=weight(5, 12, 1, 1, rng=rng),
        query=weight(CHANNELS, 3, rng=rng),
    )


@pytest.fixture
def frames():
    rng = np.random.default_rng(29)
    return [{"x": rng.normal(0, 1, (1, 24, CHANNELS)).astype(np.float32)} for _ in range(3)]


def spread_of(values, axis):
    """How many times larger than the median channel the largest is."""
    largest = np.abs(np.moveaxis(values, axis, 0)).reshape(values.shape[axis], -1).max(1)
    return largest.max() / np.median(largest)


def error_in_int8(model, frames):
    activations = {each.activation for each in quantizable(model)}
    ranges = {name: range_of(each, "minmax") for name, each in observe(model, activations, frames).items()}
    quantized = int8_model(model, ranges)
    pairs = [(outputs_of(quantized, **frame)[0], outputs_of(model, **frame)[0]) for frame in frames]
    return sum(np.mean((a - b) ** 2) for a, b in pairs) / sum(np.mean(b**2) for _, b in pairs)


def test_not_a_bit_changes(ffn, frames):
    changed = equalized(ffn, frames)
    assert_valid(changed)
    for frame in frames:
        for before, after in zip(outputs_of(ffn, **frame), outputs_of(changed, **frame), strict=True):
            np.testing.assert_array_equal(before, after)
    assert [node.op_type for node in changed.graph.node] == [node.op_type for node in ffn.graph.node]
    assert initializers(changed).keys() == initializers(ffn).keys()


def test_channels_come_to_like_sizes(ffn, frames):
    changed = equalized(ffn, frames)
    for name, axis, most in (("normed", 2, 8), ("hidden", 1, 2), ("active", 1, 12)):
        before, after = (spread_of(tensor_of(each, name, frames[0]), axis) for each in (ffn, changed))
        assert after < most
        assert after < 0.7 * before
    # Halves meet: what the norm no longer has, the weights that read it have.
    factors = initializers(ffn)["gain"] / np.where(SIZES, initializers(changed)["gain"], 1)
    assert factors[2] in (4, 8)
    np.testing.assert_array_equal(initializers(changed)["query"][2], initializers(ffn)["query"][2] * factors[2])
    np.testing.assert_array_equal(initializers(changed)["shift"][2], initializers(ffn)["shift"][2] / factors[2])


def test_int8_is_exacter(ffn, frames):
    assert error_in_int8(equalized(ffn, frames), frames) < 0.25 * error_in_int8(ffn, frames)


def test_the_model_itself_stays_as_it_was(ffn, frames):
    before = ffn.SerializeToString(deterministic=True)
    equalized(ffn, frames)
    assert ffn.SerializeToString(deterministic=True) == before


PRODUCT = ("MatMul", ["normed", "query"], ["queries"], {})
AFTER = ("Relu", ["queries"], ["other"], {})


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        pytest.param([PRODUCT, AFTER, ("Sigmoid", ["normed"], ["s"], {})], {"s": [1, 24, 8]}, id="float reader"),
        pytest.param([PRODUCT, AFTER], {"normed": [1, 24, 8]}, id="output"),
        pytest.param(
            [PRODUCT, AFTER, ("Transpose", ["normed"], ["t"], {}), ("Sigmoid", ["t"], ["s"], {})],
            {"s": [8, 24, 1]},
            id="float reader of another layout",
        ),
        pytest.param([("MatMul", ["tokens", "normed"], ["queries"], {}), AFTER], {}, id="sum over tokens"),
        pytest.param(
            [("Reshape", ["normed", "mixed_shape"], ["m"], {}), ("MatMul", ["m", "wide"], ["queries"], {}), AFTER],
            {},
            id="channels of two tokens in a row",
        ),
        pytest.param(
            [("Reshape", ["normed", "swapped"], ["m"], {}), ("Conv", ["m", "kernel"], ["queries"], {}), AFTER],
            {},
            id="another axis of the same size",
        ),
        pytest.param([("Conv", ["normed", "kernel_24"], ["queries"], {}), AFTER], {}, id="sum over tokens in Conv"),
        pytest.param(
            [("Relu", ["normed"], ["r"], {}), ("MatMul", ["r", "query"], ["queries"], {}), AFTER],
            {"normed": [1, 24, 8]},
            id="output before a ReLU",
        ),
        pytest.param(
            [
                ("Relu", ["normed"], ["r"], {}),
                ("MatMul", ["r", "query"], ["queries"], {}),
                AFTER,
                ("Sigmoid", ["normed"], ["s"], {}),
            ],
            {"s": [1, 24, 8]},
            id="float reader before a ReLU",
        ),
    ],
)
def test_what_must_stay(nodes, outputs, frames):
    constants = {
        "kernel": weight(3, 8, 1),
        "kernel_24": weight(3, 24, 1),
        "swapped": np.array([1, 8, 24], np.int64),
        "query": weight(CHANNELS, 3),
        "tokens": weight(3, 24),
        "wide": weight(16, 3),
        "mixed_shape": np.array([1, 12, 16], np.int64),
    }
    model = network(nodes, {"other": None, **outputs}, **constants)
    after = initializers(equalized(model, frames))
    np.testing.assert_array_equal(after["gain"], SIZES)


def test_through_a_relu(frames):
    nodes = [("Relu", ["normed"], ["r"], {}), ("MatMul", ["r", "query"], ["queries"], {}), AFTER]
    model = network(nodes, {"other": [1, 24, 3]}, query=weight(CHANNELS, 3))
    changed = equalized(model, frames)
    assert initializers(changed)["gain"][2] < SIZES[2] / 2
    np.testing.assert_array_equal(outputs_of(changed, **frames[0])[0], outputs_of(model, **frames[0])[0])


def test_a_norm_over_two_axes_stays(frames):
    norm = ("LayerNormalization", ["x", "gain", "shift"], ["normed"], {"axis": -2})
    constants = {"gain": weight(24, CHANNELS), "shift": weight(24, CHANNELS), "query": weight(CHANNELS, 3)}
    outputs = {"other": [1, 24, 3]}
    model = model_of([norm, PRODUCT, AFTER], inputs={"x": [1, 24, CHANNELS]}, outputs=outputs, constants=constants)
    np.testing.assert_array_equal(initializers(equalized(model, frames))["gain"], constants["gain"])


def test_constants_that_others_read_stay(frames):
    """Equal constants are stored once: two norms with the same gain, one of which can be scaled."""
    nodes = [
        PRODUCT,
        AFTER,
        ("LayerNormalization", ["x", "gain", "shift"], ["again"], {"axis": -1}),
        ("Sigmoid", ["again"], ["s"], {}),
        ("MatMul", ["again", "query"], ["more"], {}),
        ("Relu", ["more"], ["m"], {}),
    ]
    model = network(nodes, {"other": [1, 24, 3], "s": [1, 24, 8], "m": [1, 24, 3]}, query=weight(CHANNELS, 3))
    changed = equalized(model, frames)
    assert_valid(changed)
    assert spread_of(tensor_of(changed, "normed", frames[0]), 2) < spread_of(tensor_of(model, "normed", frames[0]), 2)
    for before, after in zip(outputs_of(model, **frames[0]), outputs_of(changed, **frames[0]), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(("group", "scaled"), [(1, True), (8, True), (2, False)])
def test_groups(group, scaled, frames):
    nodes = [
        ("Transpose", ["normed"], ["turned"], {"perm": [0, 2, 1]}),
        ("Conv", ["turned", "kernel"], ["queries"], {"group": group}),
        AFTER,
    ]
    model = network(nodes, {"other": [1, 8, 22]}, kernel=weight(8, 8 // group, 3))
    changed = equalized(model, frames)
    assert np.array_equal(initializers(changed)["gain"], SIZES) != scaled
    np.testing.assert_array_equal(outputs_of(changed, **frames[0])[0], outputs_of(model, **frames[0])[0])


@pytest.mark.parametrize(("attributes", "shape"), [({"transB": 1}, (3, 8)), ({}, (8, 3)), ({"transA": 1}, (24, 3))])
def test_gemm(attributes, shape, frames):
    nodes = [
        ("Reshape", ["normed", "flat"], ["rows"], {}),
        ("Gemm", ["rows", "matrix"], ["queries"], attributes),
        AFTER,
    ]
    model = network(nodes, {"other": None}, matrix=weight(*shape), flat=np.array([24, 8], np.int64))
    changed = equalized(model, frames)
    assert np.array_equal(initializers(changed)["gain"], SIZES) == ("transA" in attributes)  # it sums over the tokens
    np.testing.assert_array_equal(outputs_of(changed, **frames[0])[0], outputs_of(model, **frames[0])[0])


# Factors


def test_a_depthwise_convolution_takes_the_whole_factor():
    factors = factors_for(np.array([1, 2, 64, 0.25, 1], np.float32), [])
    np.testing.assert_array_equal(factors, [1, 2, 64, 0.25, 1])


def test_a_product_meets_half_way():
    sizes, weights = np.array([1, 1, 64, 1, 1], np.float32), np.array([1, 1, 1, 1 / 16, 1], np.float32)
    np.testing.assert_array_equal(factors_for(sizes, [weights]), [1, 1, 8, 4, 1])
    # Of two products the one with the larger weight decides.
    np.testing.assert_array_equal(factors_for(sizes, [weights, np.ones(5, np.float32)]), [1, 1, 8, 1, 1])


def test_dead_channels_have_bounded_factors():
    for sizes, weights in (([1, 1, 0], []), ([0, 0, 0], []), ([1, 1, 1e30], []), ([1, 1, 0], [np.array([1, 0, 1])])):
        for factor in factors_for(np.array(sizes, np.float32), [each.astype(np.float32) for each in weights]):
            assert 2**-8 <= factor <= 2**8
            assert math.log2(factor).is_integer()


# Magnitudes


@pytest.mark.parametrize("opset", [17, 18])
def test_magnitudes_of_channels(opset):
    model = model_of(
        [("Neg", ["x"], ["y"], {}), ("Relu", ["y"], ["z"], {})],
        inputs={"x": [2, 3, 4, 5]},
        outputs={"z": [2, 3, 4, 5]},
        opset=opset,
    )
    rng = np.random.default_rng(31)
    frames = [{"x": rng.normal(0, 1, (2, 3, 4, 5)).astype(np.float32)} for _ in range(4)]
    seen = channel_magnitudes(model, {"y": 1, "z": 3}, frames)
    values = np.stack([frame["x"] for frame in frames])
    np.testing.assert_array_equal(seen["y"], np.abs(values).max(axis=(0, 1, 3, 4)))
    np.testing.assert_array_equal(seen["z"], np.maximum(-values, 0).max(axis=(0, 1, 2, 3)))


def test_infinity_and_no_frame(ffn, frames):
    frames[1]["x"][0, 3] = np.inf
    model = model_of(
        [("Relu", ["x"], ["y"], {}), ("Relu", ["y"], ["z"], {})],
        inputs={"x": [1, 24, CHANNELS]},
        outputs={"z": [1, 24, CHANNELS]},
    )
    with pytest.raises(BackendError, match=r"'y' holds values that are not finite .* on calibration frame 1"):
        channel_magnitudes(model, {"y": 2}, frames)
    with pytest.raises(UsageError, match="nothing to measure on: no frame"):
        equalized(ffn, [])
