import numpy as np
import pytest

from sfpp.runtime.contract import KeypointSpec
from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.keypoints import KEYPOINT_SETS
from sfpp.runtime.skeleton import SIDE_COLORS_BGR, draw_skeletons, limb_side, sides

SPEC = KeypointSpec(names=("neck", "left", "right", "hip"), skeleton=((0, 1), (0, 2), (0, 3)), flip_pairs=((1, 2),))
POINTS = np.array([[[200, 100], [120, 250], [280, 250], [200, 350]]], np.float32)
SURE = np.ones((1, 4), np.float32)


def black(size_hw=(400, 400)):
    return np.zeros((*size_hw, 3), np.uint8)


def color_at(image, x, y):
    return tuple(int(value) for value in image[y, x])


def test_limbs_have_the_color_of_their_side():
    image = draw_skeletons(black(), POINTS, SURE, SPEC)
    assert color_at(image, 160, 175) == SIDE_COLORS_BGR["left"]
    assert color_at(image, 240, 175) == SIDE_COLORS_BGR["right"]
    assert color_at(image, 200, 225) == SIDE_COLORS_BGR["middle"]
    for index, side in enumerate(("middle", "left", "right", "middle")):
        assert color_at(image, *POINTS[0, index].astype(int)) == SIDE_COLORS_BGR[side]


def test_colors_of_sides_differ():
    colors = [np.array(color) for color in SIDE_COLORS_BGR.values()]
    assert len(colors) == 3
    assert min(np.abs(a - b).sum() for a in colors for b in colors if a is not b) > 150


def test_sides_are_told_from_the_pairs():
    assert sides(SPEC) == ("middle", "left", "right", "middle")
    for spec in KEYPOINT_SETS.values():
        named = [name.split("_")[0] if name.startswith(("left_", "right_")) else "middle" for name in spec.names]
        assert list(sides(spec)) == named


@pytest.mark.parametrize(
    ("a", "b", "side"),
    [
        ("left", "left", "left"),
        ("right", "right", "right"),
        ("middle", "middle", "middle"),
        ("left", "middle", "left"),
        ("middle", "right", "right"),
        ("left", "right", "middle"),
        ("right", "left", "middle"),
    ],
)
def test_side_of_a_limb(a, b, side):
    assert limb_side(a, b) == side


def test_keypoints_below_the_threshold_take_their_limbs_along():
    scores = np.array([[0.9, 0.29, 0.31, 0.9]], np.float32)
    image = draw_skeletons(black(), POINTS, scores, SPEC, threshold=0.3)
    assert color_at(image, 160, 175) != SIDE_COLORS_BGR["left"]
    assert not image[240:260, 100:140].any()
    assert color_at(image, 240, 175) == SIDE_COLORS_BGR["right"]


def test_frame_is_left_alone_and_drawn_where_the_person_is():
    rng = np.random.default_rng(1)
    frame = rng.integers(0, 256, size=(400, 500, 3), dtype=np.uint8)
    before = frame.copy()
    image = draw_skeletons(frame, POINTS, SURE, SPEC)
    np.testing.assert_array_equal(frame, before)
    changed = (image != frame).any(axis=2)
    assert changed.any()
    assert not changed[:, 300:].any()
    assert not changed[:, :100].any()


def test_grey_frame_gets_colors():
    image = draw_skeletons(np.zeros((400, 400), np.uint8), POINTS, SURE, SPEC)
    assert color_at(image, 160, 175) == SIDE_COLORS_BGR["left"]


def label_area(ids, scores=SURE):
    """What is drawn well above the person's highest point; the ground is grey, so a dark box shows."""
    frame = np.full((400, 400, 3), 200, np.uint8)
    return draw_skeletons(frame, POINTS, scores, SPEC, ids=ids)[:90]


def test_label_shows_id_and_score():
    plain, one, two = label_area(None), label_area([1]), label_area([27])
    for area in (plain, one, two):
        assert (area > 240).all(axis=2).any()  # white text
        assert (area < 100).all(axis=2).any()  # on a dark ground
    assert (plain != one).any()
    assert (one != two).any()
    assert (label_area([1], SURE / 2) != one).any()


def test_label_stays_inside_the_image():
    def white_pixels(shift):
        frame = np.full((400, 400, 3), 200, np.uint8)
        # Lighter than the ground, which only text is; OpenCV 4's thin strokes are hardly ever fully white.
        return (draw_skeletons(frame, POINTS + np.float32(shift), SURE, SPEC, ids=[12]) > 210).all(axis=2).sum()

    whole = white_pixels((0, 0))
    assert whole > 20
    for shift in ((-200, -100), (190, -100), (-200, 0), (190, 0)):
        assert white_pixels(shift) > 0.95 * whole


def limb_thickness(scale, size_hw):
    points = POINTS * np.float32(scale)
    image = draw_skeletons(black(size_hw), points, SURE, SPEC)
    row = image[round(225 * scale)]
    middle = slice(round(170 * scale), round(230 * scale))
    return row[middle].sum() / sum(SIDE_COLORS_BGR["middle"])


def test_limbs_grow_with_the_person_up_to_a_share_of_the_image():
    small, large = limb_thickness(0.25, (2000, 2000)), limb_thickness(4, (2000, 2000))
    assert 0.5 < small < 3
    assert large >= 4 * small
    assert limb_thickness(1, (400, 400)) < limb_thickness(1, (1600, 1600))


def test_positions_are_exact_to_a_fraction_of_a_pixel():
    whole = draw_skeletons(black(), POINTS, SURE, SPEC)
    moved = draw_skeletons(black(), POINTS + np.float32(0.5), SURE, SPEC)
    mass = [image[160:190].sum(axis=2, dtype=np.float64) for image in (whole, moved)]
    centers = [(image.sum(axis=0) * np.arange(400)).sum() / image.sum() for image in mass]
    # Half a pixel right, less what half a pixel down makes of a left limb that leads downwards and a right one.
    assert centers[1] - centers[0] == pytest.approx(0.5, abs=0.25)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e9, 5000.0])
@pytest.mark.parametrize("axis", [0, 1])
def test_points_that_are_nowhere_are_left_out(value, axis):
    points = POINTS.copy()
    points[0, 1, axis] = value
    image = draw_skeletons(black(), points, SURE, SPEC)
    assert color_at(image, 160, 175) == (0, 0, 0)
    assert color_at(image, 240, 175) == SIDE_COLORS_BGR["right"]
    assert draw_skeletons(black(), np.full_like(POINTS, value), SURE, SPEC).max() == 0


def test_nan_scores_are_left_out():
    assert draw_skeletons(black(), POINTS, np.full_like(SURE, np.nan), SPEC, threshold=0).max() == 0


def test_points_a_little_outside_are_drawn_to_the_border():
    points = POINTS.copy()
    points[0, 1] = -80, 250
    image = draw_skeletons(black(), points, SURE, SPEC)
    assert image[150:250, :40].any()


@pytest.mark.parametrize("size_hw", [(1, 1), (3, 200), (200, 2), (10, 10)])
def test_tiny_frames(size_hw):
    points = np.random.default_rng(2).uniform(-5, 205, size=(4, 17, 2)).astype(np.float32)
    image = draw_skeletons(black(size_hw), points, np.ones((4, 17)), KEYPOINT_SETS["coco17"], ids=[1, 2, 3, 10**9])
    assert image.shape == (*size_hw, 3)


def test_nobody_and_nothing_sure():
    empty = draw_skeletons(black(), np.zeros((0, 4, 2)), np.zeros((0, 4)), SPEC, ids=[])
    assert not empty.any()
    assert not draw_skeletons(black(), POINTS, SURE * 0.1, SPEC, ids=[1]).any()


def test_keypoints_without_skeleton_are_dots():
    image = draw_skeletons(black(), POINTS, SURE, KeypointSpec(names=SPEC.names))
    assert color_at(image, 120, 250) == SIDE_COLORS_BGR["middle"]
    assert color_at(image, 160, 175) == (0, 0, 0)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_threshold_outside_its_range(threshold):
    with pytest.raises(UsageError, match=r"threshold is .*expected 0"):
        draw_skeletons(black(), POINTS, SURE, SPEC, threshold=threshold)


def test_shapes_that_do_not_fit():
    with pytest.raises(UsageError, match="2 ids given for 1 people"):
        draw_skeletons(black(), POINTS, SURE, SPEC, ids=[1, 2])
    with pytest.raises(UsageError, match=r"shape \(1, 3, 2\).*expected \(people, 4, 2\)"):
        draw_skeletons(black(), POINTS[:, :3], SURE, SPEC)
    with pytest.raises(UsageError, match=r"scores of shape \(1, 3\)"):
        draw_skeletons(black(), POINTS, SURE[:, :3], SPEC)
    with pytest.raises(MediaError, match="at least one pixel"):
        draw_skeletons(black((0, 0)), POINTS, SURE, SPEC)
