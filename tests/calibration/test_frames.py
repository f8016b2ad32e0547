"""Calibration sees frames exactly as the runtime does."""

import numpy as np
import pytest

from sfpp.calibration.frames import calibration_inputs, chosen_indices
from sfpp.runtime.contract import InputSpec
from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.images import input_from_frame, write_image

SPEC = InputSpec(name="frame", height=32, width=48)


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (40, 60, 3), np.uint8) for _ in range(6)]
    for index, image in enumerate(images):
        write_image(tmp_path / f"{index}.png", image)
    return tmp_path, images


def test_the_choice_is_seeded_sorted_and_without_repetition():
    first = chosen_indices(100, 10, seed=4)
    assert first == chosen_indices(100, 10, seed=4)
    assert first != chosen_indices(100, 10, seed=5)
    assert first == sorted(set(first))
    assert chosen_indices(3, 10) == [0, 1, 2]
    with pytest.raises(UsageError, match="at least 1"):
        chosen_indices(3, 0)


def test_inputs_are_those_of_the_runtime(pictures):
    folder, images = pictures
    inputs = list(calibration_inputs(str(folder), SPEC, frames=3, seed=1))
    expected = [input_from_frame(images[index], SPEC)[0] for index in chosen_indices(6, 3, seed=1)]
    np.testing.assert_array_equal(inputs, expected)


def test_fewer_frames_than_wanted_are_used_with_a_warning(pictures):
    with pytest.warns(UserWarning, match="gave 6 calibration frames, 64 were asked for"):
        assert len(list(calibration_inputs(str(pictures[0]), SPEC))) == 6


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(MediaError):
        list(calibration_inputs(str(tmp_path), SPEC))
