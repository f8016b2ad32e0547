"""Width x height: what is understood and what is refused."""

import pytest

from sfpp.export.settings import MAX_SIDE, Resolution, resolution_from
from sfpp.runtime.errors import UsageError


@pytest.mark.parametrize(
    "value",
    ["3840x2160", "3840X2160", " 3840 x 2160 ", "03840x2160", (3840, 2160), [3840, 2160], Resolution(3840, 2160)],
)
def test_width_comes_first(value):
    size = resolution_from(value)
    assert (size.width, size.height) == (3840, 2160)
    assert type(size) is Resolution
    assert str(size) == "3840x2160"


@pytest.mark.parametrize(
    "text",
    [
        *("3840", "3840x", "x2160", "-3x5", "3840x-5", "3840x2160x3", "3840*2160", "3840,2160", "1920 1080"),
        *("38.4x21.6", "", "axb", "4k", "9999999999x5", "0x10x5"),
    ],
)
def test_text_that_is_not_a_size(text):
    with pytest.raises(UsageError, match="expected WIDTHxHEIGHT in pixels, such as 3840x2160") as caught:
        resolution_from(text)
    assert f"--res is {text!r}" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("value", [(3840,), (1, 2, 3), (3840.5, 2160), (3840.0, 2160.0), ("3840", "2160"), 3840, None])
def test_values_that_are_not_two_whole_numbers(value):
    with pytest.raises(UsageError, match="expected WIDTHxHEIGHT"):
        resolution_from(value)


def test_a_truth_value_is_no_side():
    with pytest.raises(UsageError, match="expected WIDTHxHEIGHT"):
        resolution_from((True, 2160))


@pytest.mark.parametrize(
    "value", ["0x0", "0x2160", "3840x0", "16385x16", "16x16385", "999999999x999999999", (0, 5), (-3, 5), (5, 20000)]
)
def test_a_side_out_of_range(value):
    with pytest.raises(UsageError, match=r"\(width x height\), expected 1 to 16384 pixels on each side"):
        resolution_from(value)


def test_the_ends_of_the_range_are_in():
    assert resolution_from(f"1x{MAX_SIDE}") == (1, 16384)
    assert resolution_from(f"{MAX_SIDE}x1") == (16384, 1)
