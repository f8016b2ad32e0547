"""Multi-label models: masks, the labels made of them, and what is drawn, counted and written."""

import dataclasses

import numpy as np
import pytest

from sfpp.runtime.backends import FunctionBackend
from sfpp.runtime.contract import contract_from_json
from sfpp.runtime.errors import BackendError, ContractError, ModelFileError, UsageError
from sfpp.runtime.labels import labels_from_logits, labels_of_masks
from sfpp.runtime.motion.options import check_logits
from sfpp.runtime.overlay import draw_labels
from sfpp.runtime.segmentation import Segmentation, Segmenter
from sfpp.runtime.self_test import self_test, self_test_for
from sfpp.runtime.self_test_data import MOST_MASKS, packed, unpacked
from sfpp.runtime.viewer import ViewerUpdate
from sfpp.runtime.viewer.drawing import ViewSetting, draw_view
from tests.runtime.test_segmentation import CLASSES, PALETTE, contract_for, fixed_output, quadrants

THRESHOLD = 0.8


def multi_label(kind="logits", **changes):
    contract = contract_for(kind="logits" if kind == "logits" else "labels")
    outputs = (dataclasses.replace(contract.outputs[0], kind=kind),)
    return dataclasses.replace(contract, outputs=outputs, **{"threshold": THRESHOLD, "multi_label": True, **changes})


def model_of(function, kind="logits", **changes):
    return Segmenter(FunctionBackend(function, metadata={}), multi_label(kind, **changes))


def random_logits(seed=0):
    return np.random.default_rng(seed).normal(1, 2, (1, 3, 8, 16)).astype(np.float32)


@pytest.mark.parametrize("size_hw", [(32, 64), (100, 60), (20, 200), (6, 9)])
def test_masks_are_where_each_class_is_above_the_threshold(size_hw):
    logits = random_logits()
    model = model_of(fixed_output(logits))
    frame = quadrants(*size_hw)
    found = model(frame)
    placement = model.prepare(frame).placements[0]
    region = placement.region((8, 16), model_size_hw=(32, 64))
    floor = np.full((8, 16), np.log(THRESHOLD / (1 - THRESHOLD)), np.float32)
    for mask, values in zip(found.masks, logits[0], strict=True):
        np.testing.assert_array_equal(mask, labels_from_logits(np.stack([floor, values]), size_hw, region=region))
    best = labels_from_logits(logits[0], size_hw, region=region)
    np.testing.assert_array_equal(found.labels, np.where(found.masks.any(0), best, 255))
    assert (found.masks.dtype, found.masks.shape) == (np.uint8, (3, *size_hw))


def test_a_graph_with_masks():
    masks = np.random.default_rng(1).integers(0, 2, (1, 3, 32, 64), np.uint8)
    found = model_of(fixed_output(masks), "masks")(quadrants(32, 64))
    np.testing.assert_array_equal(found.masks, masks[0])
    for y, x in np.ndindex(32, 64):
        there = np.flatnonzero(masks[0, :, y, x])
        assert found.labels[y, x] == (there[0] if there.size else 255)


@pytest.mark.parametrize(
    ("kind", "values", "error", "message"),
    [
        ("masks", np.full((1, 3, 32, 64), 2, np.uint8), BackendError, r"masks 2\.\.2, expected 0\.\.1"),
        ("masks", np.zeros((1, 32, 64), np.uint8), ModelFileError, r"expected 1x3x32x64 \(batch, classes, rows, colu"),
        ("masks", np.zeros((1, 3, 32, 64), np.float32), ModelFileError, "integers"),
        ("logits", np.full((1, 3, 8, 16), np.nan, np.float32), BackendError, "NaN"),
    ],
)
def test_an_output_that_does_not_fit(kind, values, error, message):
    with pytest.raises(error, match=message):
        model_of(fixed_output(values), kind)(quadrants(32, 64))


def answer(size_hw=(4, 6)):
    masks = np.zeros((3, *size_hw), np.uint8)
    masks[0, :2], masks[2, 1:3] = 1, 1
    return Segmentation(labels_of_masks(masks), CLASSES, PALETTE, masks)


def test_shares_overlap():
    found = answer()
    assert found.shares() == {"red": 0.5, "green": 0.0, "blue": 0.5}
    assert found.to_record() == {"shares": {"red": 0.5, "blue": 0.5}}
    np.testing.assert_array_equal(found.labels[:, 0], [0, 0, 2, 255])


@pytest.mark.parametrize("legend", [True, False])
def test_a_pixel_without_a_class_is_drawn_as_it_is(legend):
    frame = np.random.default_rng(2).integers(0, 256, (4, 6, 3), np.uint8)
    before = frame.copy()
    found = answer()
    drawn = found.draw(frame, alpha=0.5, legend=legend)
    np.testing.assert_array_equal(drawn[3], before[3])
    np.testing.assert_array_equal(drawn[:3], draw_labels(frame, found.labels, PALETTE)[:3])
    np.testing.assert_array_equal(frame, before)


@pytest.mark.parametrize("hidden", [frozenset(), frozenset({0})])
def test_the_page_shows_the_frame_where_there_is_no_class(hidden):
    frame = np.random.default_rng(2).integers(0, 256, (4, 6, 3), np.uint8)
    update = ViewerUpdate(source="front", index=0, image_bgr=frame, labels=answer().labels)
    drawn = draw_view(update, ViewSetting(opacity=50, hidden=hidden), PALETTE)
    np.testing.assert_array_equal(drawn[3], frame[3])
    assert (drawn[:2] == frame[:2]).all() == bool(hidden)
    assert (drawn[2] != frame[2]).any()
    assert not draw_view(update, ViewSetting(view="mask"), PALETTE)[3].any()


def test_a_picture_of_each_class():
    found = dataclasses.replace(answer(), classes=("road/lane", "Road lane", "road_LANE"))
    images = found.mask_images()
    assert list(images) == ["-road_lane", "-Road_lane-1", "-road_LANE-2"]
    for image, mask in zip(images.values(), found.masks, strict=True):
        np.testing.assert_array_equal(image, 255 * mask)
    plain = dataclasses.replace(found, masks=None)
    assert list(plain.mask_images()) == [""]
    np.testing.assert_array_equal(plain.mask_images()[""], found.labels)


def test_the_self_test_compares_masks():
    logits = random_logits()
    logits[:, 0] += 20  # wins everywhere, so that labels would say nothing of the others
    model = model_of(fixed_output(logits))
    stored = self_test_for(model, quadrants(32, 64), 0.98)
    for function, agreement in ((logits, 1.0), (logits - [[[[0]], [[99]], [[0]]]], None)):
        tested = model_of(fixed_output(function), self_test=stored)
        result = self_test(tested)
        assert result.compared == "the masks of a stored frame of 64x32 pixels"
        assert result.agreement == (agreement or 1 - model(quadrants(32, 64)).masks[1].mean())
        assert result.passed == (agreement == 1.0)


def test_the_masks_of_many_classes_fit_into_a_contract():
    masks = np.random.default_rng(3).integers(0, 2, (MOST_MASKS, 160, 160), np.uint8)
    frame = np.zeros((160, 160, 3), np.uint8)
    classes, palette = tuple(map(str, range(40))), ((0, 0, 0),) * 40
    contract = multi_label(classes=classes, palette=palette)
    test = packed(frame, masks, threshold=0.98)
    assert len(test.answer) < 100_000
    np.testing.assert_array_equal(unpacked(test, contract)[1], masks)


def test_masks_cannot_be_smoothed():
    check_logits(multi_label(), wanted="--smooth")
    with pytest.raises(UsageError, match="--smooth needs logits, and this model gives masks; export it with --output"):
        check_logits(multi_label("masks"), wanted="--smooth")


@pytest.mark.parametrize("contract", [multi_label(), multi_label("masks")])
def test_the_contract_goes_through_json(contract):
    assert contract_from_json(contract.to_json()) == contract


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": None}, "a multi-label model needs a threshold"),
        ({"threshold": 1.0}, "the threshold is 1.0, expected above 0 and below 1"),
        ({"threshold": float("nan")}, "the threshold is nan"),
        ({"classes": ("a",), "palette": ((0, 0, 0),)}, "1 classes, expected 2 to 255 with multi_label"),
        ({"classes": ("a",) * 256, "palette": ((0, 0, 0),) * 256}, "256 classes, expected 2 to 255"),
        ({"multi_label": False}, "3 classes, expected 2 with a threshold"),
        ({"multi_label": False, "threshold": None, "kind": "masks"}, "masks does not go with multi_label False"),
        ({"kind": "labels"}, "labels does not go with multi_label True"),
    ],
)
def test_contracts_that_cannot_be(changes, message):
    kind = changes.pop("kind", "logits")
    with pytest.raises(ContractError, match=message):
        multi_label(kind, **changes)
