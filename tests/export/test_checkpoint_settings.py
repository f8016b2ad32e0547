"""Numbers in a ``config.json`` that no network can have."""

from __future__ import annotations

import pytest

from sfpp.export.checkpoints.sizes import encoder_from_settings
from sfpp.export.models.segformer import EncoderConfig
from sfpp.runtime.errors import CheckpointError


def test_what_is_not_said_is_the_librarys_default():
    assert encoder_from_settings({}, "weights") == EncoderConfig((32, 64, 160, 256), (2, 2, 2, 2))


@pytest.mark.parametrize("number", [4097, 10**12, 10**400, float("inf"), float("nan"), -1, 2.5, "7", None])
def test_a_number_beyond_reason(number):
    """Such sizes overflow the arithmetic of tensors, so they must not get that far."""
    with pytest.raises(CheckpointError, match=r"weights: config\.json has patch_sizes .* 4 whole numbers from 1 to"):
        encoder_from_settings({"patch_sizes": [7, 3, 3, number]}, "weights")
