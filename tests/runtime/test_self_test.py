"""A self-test is made of a model that answers rightly, survives JSON, and fails on a model that does not."""

import dataclasses

import numpy as np
import pytest

from sfpp.runtime.backends import FunctionBackend
from sfpp.runtime.contract import EngineRecord, contract_from_json
from sfpp.runtime.errors import BackendError, MediaError, UsageError
from sfpp.runtime.pose import PoseEstimator
from sfpp.runtime.segmentation import Segmenter
from sfpp.runtime.self_test import self_test, self_test_for, threshold_for
from sfpp.runtime.self_test_data import unpacked
from tests.runtime import test_segmentation
from tests.runtime.test_pose import color_finder, contract_for, side_finder, spots
from tests.runtime.test_segmentation import quadrants, strongest_channel, strongest_channel_labels

FRAME = quadrants(72, 144)


def segmenter(function=strongest_channel, *, self_test=None, precision="fp32", **options):
    contract = dataclasses.replace(test_segmentation.contract_for(**options), self_test=self_test)
    return Segmenter(FunctionBackend(function, {}, precision=precision), contract)


def estimator(function=color_finder, *, self_test=None, flip_test=False, **options):
    contract = dataclasses.replace(contract_for(**options), self_test=self_test)
    return PoseEstimator(FunctionBackend(function, {}), contract, flip_test=flip_test)


def person(points=((20, 30), (60, 40), (40, 90)), *, brightness=1.0):
    """A frame of 96x128 pixels with a red, a green and a blue spot."""
    return (spots(points, (128, 96), sigma=6) * brightness).astype(np.uint8)


def swapped(function):
    """The same model with red and blue exchanged."""
    return lambda inputs: function({name: values[..., ::-1] for name, values in inputs.items()})


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (strongest_channel, {}),
        (strongest_channel, {"batch": 3}),
        (strongest_channel_labels, {"kind": "labels"}),
    ],
    ids=["logits", "batch", "labels"],
)
def test_a_segmenter_passes_its_own_test_after_json_and_not_with_colors_exchanged(function, options):
    made = self_test_for(segmenter(function, **options), FRAME, 0.98)
    contract = dataclasses.replace(test_segmentation.contract_for(**options), self_test=made)
    again = contract_from_json(contract.to_json())
    assert again == contract
    result = self_test(segmenter(function, self_test=again.self_test, **options))
    assert (result.agreement, result.threshold, result.passed) == (1.0, 0.98, True)
    broken = self_test(segmenter(swapped(function), self_test=made, **options))
    # Quarters of red, green, blue and red: only the green one stays.
    assert broken.agreement == pytest.approx(0.25, abs=0.03)
    assert not broken.passed


@pytest.mark.parametrize("batch", [1, 2])
def test_a_pose_estimator_passes_its_own_test_and_not_with_colors_exchanged(batch):
    made = self_test_for(estimator(batch=batch), person(), 0.98)
    assert self_test(estimator(batch=batch, self_test=made)).agreement == 1.0
    broken = self_test(estimator(swapped(color_finder), batch=batch, self_test=made))
    assert broken.agreement == pytest.approx(1 / 3)  # green is where it was
    assert "the 3 keypoints in a stored frame of 48x64 pixels" in broken.text()


def test_agreement_is_the_share_of_equal_labels():
    made = self_test_for(segmenter(), FRAME, 0.5)
    _, expected = unpacked(made, test_segmentation.contract_for())

    def mostly_red(inputs):
        logits = strongest_channel(inputs)["out"]
        logits[:, 0, :, :8] += 1000
        return {"out": logits}

    model = segmenter(mostly_red, self_test=made)
    answer = model(unpacked(made, model.contract)[0]).labels
    equal = sum(int(a == b) for a, b in zip(answer.ravel(), expected.ravel(), strict=True))
    assert 0.5 < equal / expected.size < 0.9
    assert self_test(model).agreement == pytest.approx(equal / expected.size)


def test_exactly_the_threshold_passes():
    made = self_test_for(segmenter(), FRAME, 0.0)
    broken = segmenter(swapped(strongest_channel), self_test=made)
    share = self_test(broken).agreement
    for threshold, passes in ((share, True), (np.nextafter(share, 1), False)):
        test = dataclasses.replace(made, threshold=float(threshold))
        assert self_test(segmenter(swapped(strongest_channel), self_test=test)).passed is passes


def test_keypoints_count_if_they_were_found_and_stay_within_a_fiftieth_of_the_person():
    faint = person() // np.array([1, 1, 20], np.uint8)  # red, the first keypoint, has a maximum of 0.05
    made = self_test_for(estimator(), faint, 0.98)
    diagonal = np.hypot(48, 64) / 1.25
    for cells, moved in ((0, 0), (1, 1)):

        def shifted(inputs, cells=cells):
            heatmaps = color_finder(inputs)["heatmaps"]
            heatmaps[:, 0] = heatmaps[:, 0, ::-1]  # what was never found may be anywhere
            heatmaps[:, 1] = np.roll(heatmaps[:, 1], cells, axis=-1)
            return {"heatmaps": heatmaps}

        assert (cells * 4 > 0.02 * diagonal) == bool(moved)
        result = self_test(estimator(shifted, self_test=made))
        assert result.agreement == 1 - moved / 2
        assert "the 2 keypoints" in result.compared


def test_where_no_keypoint_is_found_all_count():
    made = self_test_for(estimator(), person(brightness=0.05), 0.98)
    assert "the 3 keypoints" in self_test(estimator(self_test=made)).compared


def test_the_flip_test_is_left_out():
    made = self_test_for(estimator(side_finder), person(), 0.98)
    # With its mirror image the model's left and right half are mixed, so an average would lie elsewhere.
    assert made == self_test_for(estimator(side_finder, flip_test=True), person(), 0.98)
    result = self_test(estimator(side_finder, self_test=made, flip_test=True))
    assert result.agreement == 1.0
    for batch in (1, 2):
        assert self_test(estimator(side_finder, self_test=made, flip_test=True, batch=batch)).passed


def test_less_is_asked_for_where_less_is_computed_in():
    made = self_test_for(segmenter(), FRAME, 0.98)

    def asked(precision, contract_precision="fp32"):
        model = segmenter(self_test=made, precision=precision)
        contract = dataclasses.replace(model.contract, precision=contract_precision)
        backend = FunctionBackend(strongest_channel, {}, precision=precision)
        return self_test(Segmenter(backend, contract)).threshold

    assert asked("fp32") == 0.98
    assert 0.8 < asked("bf16") < asked("fp16") < 0.98
    # A file of lower precision has a threshold of its own already, and a library that computes in more changes nothing.
    assert asked("fp32", "fp16") == asked("fp16", "fp16") == asked("int8", "int8") == 0.98
    assert asked("bf16") < asked("bf16", "fp16") < 0.98
    assert asked("float8") == 0.98  # what a later version knows


def test_a_threshold_lies_below_what_is_known_to_be_reached():
    contract = test_segmentation.contract_for()
    assert threshold_for(contract) == 0.98
    assert threshold_for(contract, 0.9) == 0.88
    assert threshold_for(contract, 0.01) == 0.0
    int8 = dataclasses.replace(contract, precision="int8")
    assert threshold_for(int8) < threshold_for(dataclasses.replace(contract, precision="fp16")) < 0.98
    # A dozen keypoints are few: one of them may move.
    assert threshold_for(dataclasses.replace(contract_for(), precision="int8")) < 1 - 1 / 12


def test_the_sentence_says_what_came_out_and_what_to_do():
    made = self_test_for(segmenter(), FRAME, 0.98)
    passed = self_test(segmenter(self_test=made)).text()
    assert passed.startswith("self-test passed: 100.00% of the labels of a stored frame of 64x32 pixels as exported, ")
    assert "98.00% expected at least" in passed
    assert "input 64x32 (width x height), python function" in passed
    failed = self_test(segmenter(swapped(strongest_channel), self_test=made)).text()
    assert failed.startswith("self-test failed: ")
    assert "Do not trust its answers here: choose another library for the .onnx file with --backend;" in failed
    assert "sfpp-parity" in failed
    half = self_test(segmenter(swapped(strongest_channel), self_test=made, precision="bf16")).text()
    assert "see with --precision fp32 whether it is bfloat16 that the model does not bear" in half


def test_of_an_engine_the_first_advice_is_to_build_it_again():
    made = self_test_for(segmenter(), FRAME, 0.98)
    record = EngineRecord("tensorrt", "10.3.0", ("sm87",), "Orin", "linux-aarch64", "0" * 64)
    contract = dataclasses.replace(test_segmentation.contract_for(), self_test=made, engine=record, precision="fp16")
    result = self_test(Segmenter(FunctionBackend(swapped(strongest_channel), {}, precision="fp16"), contract))
    assert result.advice[0] == "build the engine again on this machine with sfpp-engine"
    assert "--precision" not in result.text()


def test_without_a_self_test_the_way_to_one_is_told():
    with pytest.raises(UsageError, match=r"this model carries no self-test .*; export it again with this version"):
        self_test(segmenter())


def test_what_fails_while_it_runs_is_told_as_ever():
    made = self_test_for(segmenter(), FRAME, 0.98)
    with pytest.raises(BackendError, match="NaN"):
        self_test(segmenter(lambda inputs: {"out": np.full((1, 3, 8, 16), np.nan, np.float32)}, self_test=made))
    with pytest.raises(MediaError):
        self_test_for(segmenter(), np.zeros((4, 4)), 0.98)
