"""The texts of a self-test: a small frame and an answer, and whatever else somebody may have written there."""

import base64
import dataclasses
import hashlib
import tracemalloc
import zlib

import numpy as np
import pytest

from sfpp.runtime.contract import SelfTest
from sfpp.runtime.errors import ContractError
from sfpp.runtime.self_test import self_test, self_test_for
from sfpp.runtime.self_test_data import packed, small_frame, unpacked
from tests.runtime.test_pose import contract_for as pose_contract
from tests.runtime.test_segmentation import contract_for, quadrants, strongest_channel_labels
from tests.runtime.test_self_test import segmenter


def stored_frame(frame_bgr, *, height, width):
    return small_frame(frame_bgr, contract_for(height=height, width=width).input)


def smooth(height, width):
    """A frame that a PNG holds in few bytes."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 255 // height, x * 255 // width, (x + y) * 255 // (height + width)], axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    ("frame_hw", "input_hw", "stored_hw"),
    [
        ((1080, 1920), (1080, 1920), (90, 160)),
        ((480, 640), (1080, 1920), (90, 160)),
        ((480, 640), (256, 192), (160, 120)),
        ((300, 90), (128, 160), (72, 90)),
        ((40, 60), (1080, 1920), (34, 60)),
        ((1080, 1920), (32, 64), (32, 64)),
        ((3, 5), (64, 64), (3, 3)),
        ((1, 1), (64, 64), (1, 1)),
    ],
)
def test_the_stored_frame_has_the_inputs_aspect_ratio_and_is_never_enlarged(frame_hw, input_hw, stored_hw):
    height, width = input_hw
    assert stored_frame(smooth(*frame_hw), height=height, width=width).shape == (*stored_hw, 3)


@pytest.mark.parametrize("lying", [True, False], ids=["wide", "tall"])
def test_the_stored_frame_is_the_middle_in_means_of_pixels(lying):
    wide = np.random.default_rng(5).integers(0, 8, (320, 400, 3), np.uint8) * 32
    frame, middle = (wide, wide[:, 40:360]) if lying else (wide.swapaxes(0, 1), wide.swapaxes(0, 1)[40:360])
    stored = stored_frame(frame, height=32, width=32)
    for y, x in np.ndindex(32, 32):
        mean = middle[10 * y : 10 * y + 10, 10 * x : 10 * x + 10].mean(axis=(0, 1))
        np.testing.assert_allclose(stored[y, x], mean, atol=0.51)


@pytest.mark.parametrize("kind", ["noise", "street"])
def test_a_self_test_takes_few_bytes_whatever_the_picture(kind):
    if kind == "noise":
        frame = np.random.default_rng(6).integers(0, 256, (540, 960, 3), np.uint8)
    else:
        coarse = np.random.default_rng(7).integers(0, 256, (54, 96, 3), np.uint8)
        frame = coarse.repeat(10, axis=0).repeat(10, axis=1)
    model = segmenter(strongest_channel_labels, kind="labels", height=540, width=960)
    made = self_test_for(model, frame, 0.98)
    assert len(made.frame) <= 24_000
    assert len(dataclasses.replace(model.contract, self_test=made).to_json()) < 30_000
    assert min(unpacked(made, model.contract)[0].shape[:2]) >= 36


# --- texts that are damaged, or not ours


def sealed(frame: str, answer: str) -> SelfTest:
    """A self-test of any texts, with the hash that belongs to them."""
    digest = hashlib.sha256(f"{frame} {answer}".encode("utf-8", "replace")).hexdigest()
    return SelfTest(frame, answer, digest, 0.98)


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def packed_text(data: bytes) -> str:
    return text(zlib.compress(data, 9))


GOOD = packed(quadrants(8, 16), np.zeros((8, 16), np.uint8), threshold=0.98)
PNG = base64.b64decode(GOOD.frame)


def png_of_size(width: int, height: int) -> str:
    return text(PNG[:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + PNG[24:])


def test_the_plain_case_is_whole():
    assert sealed(GOOD.frame, GOOD.answer) == GOOD
    frame, labels = unpacked(GOOD, contract_for())
    np.testing.assert_array_equal(frame, quadrants(8, 16))
    np.testing.assert_array_equal(labels, np.zeros((8, 16)))


@pytest.mark.parametrize(
    ("frame", "answer", "message"),
    [
        ("?" + GOOD.frame, GOOD.answer, "its frame is not base64"),
        (GOOD.frame[:-3], GOOD.answer, "its frame is not base64"),
        ("straße", GOOD.answer, "its frame is not base64"),
        ("\ud800", GOOD.answer, "its frame is not base64"),
        ("", GOOD.answer, "its frame is no PNG"),
        (text(PNG[:16]), GOOD.answer, "its frame is no PNG"),
        (text(b"\xff\xd8\xff" + PNG), GOOD.answer, "its frame is no PNG"),
        (png_of_size(65535, 65535), GOOD.answer, r"65535x65535 pixels \(width x height\), expected at most 512"),
        (png_of_size(0, 8), GOOD.answer, "0x8 pixels"),
        (text(PNG[:40]), GOOD.answer, "its frame cannot be decoded"),
        (GOOD.frame, "!" + GOOD.answer, "its answer is not base64"),
        (GOOD.frame, text(b"nothing"), "its answer cannot be unpacked"),
        (GOOD.frame, packed_text(bytes(127)), "its answer has 127 bytes, expected 128 for an array of 8x16"),
        (GOOD.frame, packed_text(bytes(129)), "its answer has more bytes, expected 128"),
        (GOOD.frame, packed_text(b""), "its answer has 0 bytes"),
        (GOOD.frame, "", "its answer has 0 bytes"),
        (GOOD.frame, text(zlib.compress(bytes(128))[:6]), "its answer has . bytes"),
        (GOOD.frame, packed_text(bytes([3] * 128)), "expects the label 3, but there are 3 classes"),
    ],
)
def test_what_is_no_frame_or_no_labels_is_named(frame, answer, message):
    with pytest.raises(ContractError, match=f"the self-test in the contract is damaged: .*{message}.*; export the "):
        unpacked(sealed(frame, answer), contract_for())


@pytest.mark.parametrize(
    ("keypoints", "message"),
    [
        (np.zeros((2, 3)), "its answer has 24 bytes, expected 36 for an array of 3x3"),
        (np.full((3, 3), np.nan), "keypoints that are not finite numbers"),
        (np.full((3, 3), np.inf), "keypoints that are not finite numbers"),
    ],
)
def test_what_is_no_keypoints_is_named(keypoints, message):
    test = sealed(GOOD.frame, packed_text(keypoints.astype("<f4").tobytes()))
    with pytest.raises(ContractError, match=message):
        unpacked(test, pose_contract())


def test_a_changed_letter_is_told_before_anything_is_decoded(capfd):
    middle = len(GOOD.frame) // 2
    letter = "A" if GOOD.frame[middle] != "A" else "B"
    for changes in (
        {"frame": GOOD.frame[:middle] + letter + GOOD.frame[middle + 1 :]},
        {"answer": GOOD.answer[:-4]},
        {"sha256": "0" * 64},
    ):
        with pytest.raises(ContractError, match="not those that were stored"):
            self_test(segmenter(self_test=dataclasses.replace(GOOD, **changes)))
    assert capfd.readouterr().err == ""


def test_a_bomb_is_not_unpacked():
    bomb = packed_text(bytes(60_000_000))
    assert len(bomb) < 100_000
    model = segmenter(self_test=sealed(GOOD.frame, bomb))
    self_test(segmenter(self_test=GOOD))  # what is imported along the way does not count
    tracemalloc.start()
    try:
        with pytest.raises(ContractError, match="has more bytes"):
            self_test(model)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame": "A" * 100_001}, "has 100001 and .* characters, expected at most 100000"),
        ({"answer": "A" * 100_001}, "and 100001 characters"),
        ({"threshold": 1.01}, "threshold is 1.01, expected 0 to 1"),
        ({"threshold": -0.01}, "threshold is -0.01"),
        ({"threshold": float("nan")}, "threshold is nan"),
    ],
)
def test_values_that_no_self_test_has_are_refused_with_the_contract(changes, message):
    with pytest.raises(ContractError, match=message):
        dataclasses.replace(GOOD, **changes)


def test_the_texts_do_not_flood_messages():
    contract = dataclasses.replace(contract_for(), self_test=GOOD)
    assert GOOD.frame not in repr(contract)
    assert GOOD.sha256 in repr(contract)
