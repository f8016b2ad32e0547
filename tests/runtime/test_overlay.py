import subprocess

import cv2
import numpy as np
import pytest

from sfpp.runtime.errors import UsageError
from sfpp.runtime.files import python_code
from sfpp.runtime.overlay import LegendEntry, color_mask, draw_labels, draw_legend

PALETTE = ((255, 0, 0), (0, 128, 0), (10, 20, 30))


def test_color_mask_turns_rgb_palette_into_bgr_pixels():
    mask = color_mask(np.array([[0, 1], [2, 255]], np.uint8), PALETTE)
    assert mask.tolist() == [[[0, 0, 255], [0, 128, 0]], [[30, 20, 10], [0, 0, 0]]]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_alpha_blends_frame_and_colors(alpha):
    rng = np.random.default_rng(1)
    frame = rng.integers(0, 256, size=(9, 11, 3), dtype=np.uint8)
    labels = rng.integers(0, 3, size=(9, 11), dtype=np.uint8)
    before = frame.copy()
    drawn = draw_labels(frame, labels, PALETTE, alpha=alpha)
    colors = np.array(PALETTE)[labels][..., ::-1]
    np.testing.assert_allclose(drawn, (1 - alpha) * frame + alpha * colors, atol=0.51)
    np.testing.assert_array_equal(frame, before)


def test_grey_frame_gets_colors():
    drawn = draw_labels(np.full((4, 4), 100, np.uint8), np.zeros((4, 4), np.uint8), PALETTE, alpha=0.5)
    assert drawn[0, 0].tolist() == [50, 50, 178]


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_outside_its_range(alpha):
    with pytest.raises(UsageError, match=r"alpha is .*expected 0"):
        draw_labels(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), PALETTE, alpha=alpha)


def test_labels_of_another_size():
    with pytest.raises(UsageError, match=r"frame is 4x6 .*labels are 6x4"):
        draw_labels(np.zeros((4, 6, 3), np.uint8), np.zeros((6, 4), np.uint8), PALETTE)


def legend_colors(image):
    """The swatches' colors from top to bottom, found as saturated pixels in the legend's first columns."""
    colors = []
    for row in image[:, : image.shape[1] // 2].reshape(image.shape[0], -1, 3):
        saturated = row[np.ptp(row, axis=1) > 90]
        if len(saturated) and saturated[0].tolist() not in colors:
            colors.append(saturated[0].tolist())
    return colors


ENTRIES = [
    LegendEntry("little", (250, 0, 0), 0.1),
    LegendEntry("absent", (250, 250, 0), 0.0),
    LegendEntry("most", (0, 250, 0), 0.7),
    LegendEntry("some", (0, 0, 250), 0.2),
]


@pytest.mark.parametrize("size_hw", [(360, 480), (2160, 3840), (1920, 1080)])
def test_legend_lists_present_classes_largest_first(size_hw):
    image = np.full((*size_hw, 3), 90, np.uint8)
    draw_legend(image, ENTRIES)
    assert legend_colors(image) == [[0, 250, 0], [250, 0, 0], [0, 0, 250]]


def test_legend_grows_with_the_image_and_stays_in_its_corner():
    extents = []
    for size_hw in ((360, 480), (2160, 2880)):
        image = np.full((*size_hw, 3), 90, np.uint8)
        draw_legend(image, ENTRIES)
        rows, columns = np.nonzero((image != 90).any(axis=2))
        extents.append((rows.max() / size_hw[0], columns.max() / size_hw[1]))
    np.testing.assert_allclose(extents[0], extents[1], atol=0.05)
    assert max(extents[0]) < 0.4


def test_legend_shows_as_many_lines_as_fit():
    image = np.full((60, 400, 3), 90, np.uint8)
    colors = [(5 * index, 250, 0) for index in range(30)]
    draw_legend(image, [LegendEntry("class", color, 1 / 30) for color in colors])
    shown = legend_colors(image)
    assert 2 <= len(shown) <= 4
    assert (image[-4:] == 90).all()
    assert shown == [list(color[::-1]) for color in colors[: len(shown)]]


@pytest.mark.parametrize("entries", [[], [LegendEntry("absent", (250, 0, 0), 0.0)]])
def test_nothing_present_draws_nothing(entries):
    image = np.full((360, 480, 3), 90, np.uint8)
    draw_legend(image, entries)
    assert (image == 90).all()


@pytest.mark.parametrize("size_hw", [(1, 1), (10, 480), (480, 20)])
def test_legend_is_left_out_where_it_does_not_fit(size_hw):
    image = np.full((*size_hw, 3), 90, np.uint8)
    draw_legend(image, ENTRIES)
    assert (image == 90).all()


def test_text_is_white_on_a_darkened_frame():
    image = cv2.cvtColor(np.full((360, 480), 200, np.uint8), cv2.COLOR_GRAY2BGR)
    draw_legend(image, ENTRIES)
    assert image.max() > 240
    assert image[8, 8].tolist() == [70, 70, 70]  # the box's corner, where there is no text
    assert image[2, 2].tolist() == [200, 200, 200]


@pytest.mark.parametrize("name", ["\ud800", "\udcffname", "a\0b", "\U0001f600", "n" * 10_000])
def test_no_text_ends_the_process(name):
    """In a process of its own, since OpenCV ends it at half of a surrogate pair."""
    code = (
        "import numpy as np; from sfpp.runtime.overlay import LegendEntry, draw_legend;"
        "draw_legend(np.zeros((400, 4000, 3), np.uint8), [LegendEntry(eval(sys.argv[1]), (1, 2, 3), 1.0)])"
    )
    assert subprocess.run(**python_code(code, ascii(name)), check=False).returncode == 0
