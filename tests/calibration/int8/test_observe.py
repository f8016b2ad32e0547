"""What is observed is what the model computes, whatever the size of its tensors."""

import math

import numpy as np
import onnx
import pytest

from sfpp.calibration.int8.histogram import Histogram
from sfpp.calibration.int8.observe import observe
from sfpp.calibration.probing import SAMPLE, stride_for
from sfpp.runtime.errors import BackendError, UsageError
from tests.calibration.int8.int8_graphs import assert_valid, model_of, outputs_of, weight

RNG = np.random.default_rng(5)


@pytest.fixture
def model():
    nodes = [
        ("Conv", ["x", "w"], ["hidden"], {}),
        ("Relu", ["hidden"], ["active"], {}),
        ("Conv", ["active", "v"], ["logits"], {}),
    ]
    constants = {"w": weight(6, 3, 3, 3), "v": weight(2, 6, 1, 1)}
    return model_of(nodes, inputs={"x": [1, 3, 10, 12]}, outputs={"logits": [1, 2, 8, 10]}, constants=constants)


@pytest.fixture
def frames():
    return [{"x": RNG.normal(0, scale, (1, 3, 10, 12)).astype(np.float32)} for scale in (1, 3, 0.2)]


def large_model(*shape):
    nodes = [("Neg", ["x"], ["y"], {}), ("Relu", ["y"], ["z"], {})]
    return model_of(nodes, inputs={"x": list(shape)}, outputs={"z": list(shape)})


def test_histograms_are_those_of_the_tensors(model, frames):
    seen = observe(model, ["active", "x", "logits"], frames)
    assert list(seen) == ["active", "x", "logits"]
    model.graph.output.insert(0, onnx.helper.make_tensor_value_info("active", onnx.TensorProto.FLOAT, [1, 6, 8, 10]))
    for name, values in (
        ("active", [outputs_of(model, **frame)[0] for frame in frames]),
        ("logits", [outputs_of(model, **frame)[1] for frame in frames]),
        ("x", [frame["x"] for frame in frames]),
    ):
        expected = Histogram()
        expected.add(np.stack(values))
        assert seen[name].values == expected.values
        assert seen[name].zeros == expected.zeros
        assert seen[name].largest == pytest.approx(expected.largest, rel=1e-6)
        # Optimized or not, sums differ in their last bit, and a value may fall into the bin beside.
        assert np.abs(np.cumsum(seen[name].counts - expected.counts)).max() <= 3
    assert seen["active"].zeros > 100


def test_the_model_stays_as_it_was(model, frames):
    before = model.SerializeToString(deterministic=True)
    observe(model, ["hidden"], frames)
    assert model.SerializeToString(deterministic=True) == before


def test_of_a_large_tensor_a_sample_and_its_largest_value():
    shape = (1, 8, 200, 250)
    values = RNG.normal(0, 1, shape).astype(np.float32)
    stride = stride_for(values.size)
    assert stride > 1
    values[0, 3, 77, 1] = -50.0
    assert (np.flatnonzero(values == -50)[0]) % stride != 0
    seen = observe(large_model(*shape), ["x", "y"], [{"x": values}])
    expected = Histogram()
    expected.add(values.ravel()[::stride], extremes=(float(values.min()), float(values.max())))
    for histogram in (seen["x"], seen["y"]):  # -50 and 50
        np.testing.assert_array_equal(histogram.counts, expected.counts)
        assert (histogram.largest, histogram.values) == (50.0, len(values.ravel()[::stride]))
        assert histogram.values <= SAMPLE


@pytest.mark.parametrize("shape", [(1, 64, 90, 120), (1, 10800, 32), (1, 8100, 160), (2, 30030, 7), (1, 17, 640, 480)])
def test_a_sample_sees_all_channels_alike(shape):
    size = math.prod(shape)
    stride = stride_for(size, sample=5000)
    places = np.unravel_index(np.arange(0, size, stride), shape)
    assert len(places[0]) <= 5000
    for axis, count in enumerate(shape):
        if count <= 200:
            visits = np.bincount(places[axis], minlength=count)
            assert visits.max() - visits.min() <= max(3, 0.4 * visits.mean())


def test_a_small_tensor_is_seen_whole():
    assert stride_for(SAMPLE) == 1
    assert stride_for(1) == 1


def test_frames_are_taken_one_by_one(model, frames):
    events = []

    def each():
        for number, frame in enumerate(frames):
            events.append(f"frame {number} asked for")
            yield frame

    observe(model, ["hidden"], each(), progress=lambda done: events.append(f"{done} done"))
    assert events == [
        *("frame 0 asked for", "1 done", "frame 1 asked for", "2 done"),
        *("frame 2 asked for", "3 done"),
    ]


def test_the_same_frames_give_the_same(model, frames):
    first, second = (observe(model, ["active"], frames)["active"] for _ in range(2))
    np.testing.assert_array_equal(first.counts, second.counts)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [300, 3 * SAMPLE])
def test_values_that_are_not_finite_name_tensor_and_frame(value, size):
    fine, broken = np.ones((1, size), np.float32), np.ones((1, size), np.float32)
    broken[0, 1] = value
    with pytest.raises(BackendError, match=r"'y' holds values that are not finite .* on calibration frame 1;"):
        observe(large_model(1, size), ["y"], [{"x": fine}, {"x": broken}])


def test_no_frame(model):
    with pytest.raises(UsageError, match="nothing to measure on: no frame"):
        observe(model, ["hidden"], [])


def test_a_tensor_that_is_not_there(model, frames):
    with pytest.raises(UsageError, match="'gone' is not a float32 tensor of known shape"):
        observe(model, ["gone"], frames)


def test_a_frame_of_the_wrong_shape(model):
    with pytest.raises(BackendError, match="x"):
        observe(model, ["hidden"], [{"x": np.zeros((1, 3, 5, 5), np.float32)}])


def test_what_no_tensor_needs_is_not_computed(model):
    from sfpp.calibration.int8.observe import with_samples

    observed = with_samples(model, ["active"])
    assert_valid(observed)
    assert "logits" not in {name for node in observed.graph.node for name in node.output}
    assert "v" not in {each.name for each in observed.graph.initializer}
