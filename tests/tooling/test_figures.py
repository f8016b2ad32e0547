"""Figures are written alike on pages and in the terminal."""

import math

import pytest

from sfpp.tooling.figures import DASH, common_digits, error, number, percent, plain, seconds_text, share, small_percent


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (number(1.005, 1), "1.0"),
        (number(-0.25), "\u22120.25"),
        (number(-0.001), "0.00"),
        (number(None), DASH),
        (number(math.nan), DASH),
        (percent(0.98765), "98.77"),
        (percent(None), DASH),
        (small_percent(0.0), "0\u00a0%"),
        (small_percent(0.000123), "0.012\u00a0%"),
        (small_percent(0.5), "50\u00a0%"),
        (small_percent(1e-9), "<\u00a00.001\u00a0%"),
        (small_percent(math.inf), DASH),
        (seconds_text(0.5), "0.50 s"),
        (seconds_text(119.0), "119 s"),
        (seconds_text(200.4), "3 min 20 s"),
        (seconds_text(math.nan), DASH),
        (common_digits([1.0, None, 9.9]), 2),
        (common_digits([1.0, 10.0, math.nan]), 1),
        (common_digits([1000.0]), 0),
        (common_digits([]), 2),
        (share(1.0), "100.00"),
        (share(0.999999), "99.99"),
        (share(0.98765), "98.77"),
        (share(math.nan), DASH),
        (error(1.234e-5), "1.2e-05"),
        (error(None), DASH),
        (plain(f"a{DASH}b\u00d7\u2212\u00a0c\n\x1b"), "a-bx- c \ufffd"),
    ],
)
def test_figures_are_written_alike_everywhere(written, expected):
    assert written == expected
