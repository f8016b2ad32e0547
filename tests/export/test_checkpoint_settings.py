"""Numbers in a ``config.json`` that no network can have, and what a ``preprocessor_config.json`` says."""

from __future__ import annotations

import json

import pytest

from sfpp.export.checkpoints.sizes import encoder_from_settings, read_normalization
from sfpp.export.models.segformer import EncoderConfig
from sfpp.runtime.contract import InputSpec
from sfpp.runtime.errors import CheckpointError


def test_what_is_not_said_is_the_librarys_default():
    assert encoder_from_settings({}, "weights") == EncoderConfig((32, 64, 160, 256), (2, 2, 2, 2))


@pytest.mark.parametrize("number", [4097, 10**12, 10**400, float("inf"), float("nan"), -1, 2.5, "7", None])
def test_a_number_beyond_reason(number):
    """Such sizes overflow the arithmetic of tensors, so they must not get that far."""
    with pytest.raises(CheckpointError, match=r"weights: config\.json has patch_sizes .* 4 whole numbers from 1 to"):
        encoder_from_settings({"patch_sizes": [7, 3, 3, number]}, "weights")


def normalization(folder, **said):
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return read_normalization(folder)


def test_what_the_preprocessor_says(tmp_path):
    usual = (InputSpec("image", 1, 1).mean, InputSpec("image", 1, 1).std)
    assert read_normalization(tmp_path) == usual
    assert normalization(tmp_path, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]) == usual
    assert normalization(tmp_path, image_mean=None, rescale_factor=None) == usual
    assert normalization(tmp_path, do_rescale=True, rescale_factor=0.00392156862745098) == usual
    assert normalization(tmp_path, image_mean=[0, 0.2, 1], image_std=[1, 0.5, 0.1])[0] == (0.0, 51.0, 255.0)
    assert normalization(tmp_path, image_mean=[0, 0.2, 1], image_std=[1, 0.5, 0.1])[1] == (255.0, 127.5, 25.5)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"do_normalize": False}, "do_normalize false, but sfpp supports only pixels divided by 255"),
        ({"do_rescale": False}, "do_rescale false, .* by image_mean and image_std from 0 to 1"),
        ({"rescale_factor": 1.0}, "rescale_factor 1.0"),
        ({"rescale_factor": float("nan")}, "rescale_factor nan"),
        ({"rescale_factor": "x"}, "rescale_factor 'x'"),
        ({"image_mean": [123.7, 116.3, 103.5]}, "image_mean .*, expected three numbers, 0 to 1"),
        ({"image_mean": [0.5]}, r"image_mean \[0\.5\]"),
        ({"image_std": [0.5, float("nan"), 0.5]}, "image_std"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std .*, expected three positive numbers"),
    ],
)
def test_pixels_that_cannot_be_prepared(tmp_path, said, message):
    with pytest.raises(CheckpointError, match=rf"preprocessor_config\.json has {message}"):
        normalization(tmp_path, **said)
