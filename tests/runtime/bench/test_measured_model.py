import dataclasses

import cv2
import numpy as np
import pytest

from sfpp.runtime.backends import TensorInfo
from sfpp.runtime.bench.measured_model import ANY_INPUT, BenchFrame, open_frame, random_inputs
from sfpp.runtime.bench.settings import input_shape
from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.pixels.nv12 import bgr_from_nv12
from tests.runtime.bench.models import CONTRACT, POSE


def test_the_shipped_picture_is_brought_to_a_segmentation_models_size():
    picture = open_frame(None)
    assert picture.frame_bgr.shape == (540, 960, 3)
    assert picture.for_model(CONTRACT).shape == (24, 32, 3)
    assert picture.for_model(POSE).shape == (540, 960, 3)


def test_a_model_that_takes_nv12_is_timed_with_it():
    """As its camera gives it; a picture of one's own is converted by the model."""
    contract = dataclasses.replace(CONTRACT, input=dataclasses.replace(CONTRACT.input, layout="NV12", matrix="bt601"))
    frame = open_frame(None).for_model(contract)
    assert frame.shape == contract.input.shape[1:]
    np.testing.assert_allclose(
        bgr_from_nv12(frame, "bt601").mean(axis=(0, 1)), open_frame(None).for_model(CONTRACT).mean(axis=(0, 1)), atol=3
    )


def test_ones_own_picture_is_left_as_it_is(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), image)
    for contract in (CONTRACT, POSE):
        np.testing.assert_array_equal(open_frame(tmp_path / "photo.png").for_model(contract), image)


def test_a_picture_that_is_none(tmp_path):
    with pytest.raises(MediaError, match="cannot read"):
        open_frame(tmp_path / "nothing.png")


def test_brought_to_size_means_scaled():
    gradient = np.repeat(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], 48, axis=0).repeat(3, axis=2)
    fitted = BenchFrame(gradient, fitted=True).for_model(CONTRACT)
    assert fitted[0, 0, 0] < 10
    assert fitted[-1, -1, 0] > 245


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1x3x512x512", ("", (1, 3, 512, 512))),
        ("7", ("", (7,))),
        ("image:1x3", ("image", (1, 3))),
        ("serving:0:1x2", ("serving:0", (1, 2))),
    ],
)
def test_shapes_as_text(text, expected):
    assert input_shape(text) == expected


@pytest.mark.parametrize("text", ["", "1x", "0x3", "1X3", "-1x3", "axb", "image:", "1.5x2"])
def test_what_is_no_shape(text):
    with pytest.raises(UsageError, match=r"is not a shape; expected sizes from 1 such as 1x3x512x512"):
        input_shape(text)


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("float32", -8, 8), ("float16", -8, 8), ("uint8", 0, 255), ("int64", 0, 1), ("bool", 0, 1)],
)
def test_values_by_type(dtype, low, high):
    values = random_inputs([TensorInfo("x", (50, 40), dtype)], shapes={}, seed=3)["x"]
    assert values.shape == (50, 40)
    assert values.dtype == dtype
    assert low <= values.min() < values.max() <= high
    if dtype == "uint8":
        assert values.max() > 200
    if dtype == "float32":
        assert values.mean() == pytest.approx(0, abs=0.1)
        assert values.std() == pytest.approx(1, abs=0.1)


def test_values_come_from_the_seed():
    first, again, other = (
        random_inputs([TensorInfo("x", (9,), "float32")], shapes={}, seed=seed)["x"] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_open_sizes_are_taken_from_what_is_given():
    declared = [
        TensorInfo("a", (None, 3), "float32"),
        TensorInfo("b", (None, 3, None), "float32"),
        TensorInfo("c", (5,), "float32"),
    ]
    inputs = random_inputs(declared, shapes={ANY_INPUT: (2, 3), "b": (1, 3, 4)}, seed=0)
    assert [inputs[name].shape for name in "abc"] == [(2, 3), (1, 3, 4), (5,)]


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({}, r"the input 'x' has the shape \?x3x\?, whose open sizes must be given: --input-shape Nx3xN"),
        ({"": (1, 4, 8)}, r"\?x3x\? \(\? is open\), and 1x4x8 does not fit; give --input-shape x:Nx3xN"),
        ({"": (1, 3)}, "1x3 does not fit"),
        ({"y": (1, 3, 8)}, "must be given"),
    ],
)
def test_sizes_that_are_missing_or_do_not_fit(shapes, words):
    with pytest.raises(UsageError, match=words):
        random_inputs([TensorInfo("x", (None, 3, None), "float32")], shapes=shapes, seed=0)


def test_a_type_that_numpy_does_not_know():
    with pytest.raises(UsageError, match="of type string, which cannot be filled"):
        random_inputs([TensorInfo("x", (1,), "string")], shapes={}, seed=0)


def test_other_sizes_than_those_of_the_only_input_are_refused():
    fixed = [TensorInfo("x", (1, 3, 8), "float32")]
    assert random_inputs(fixed, shapes={ANY_INPUT: (1, 3, 8)}, seed=0)["x"].shape == (1, 3, 8)
    with pytest.raises(UsageError, match=r"the input 'x' has the shape 1x3x8 .* and 1x3x4 does not fit"):
        random_inputs(fixed, shapes={ANY_INPUT: (1, 3, 4)}, seed=0)
