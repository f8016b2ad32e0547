import cv2
import numpy as np
import pytest

from sfpp.runtime import MediaError, UsageError
from sfpp.runtime.viewer import Limits, ViewerUpdate
from sfpp.runtime.viewer.drawing import ViewSetting, draw_view, encode
from tests.runtime.viewer.looking import PALETTE, update


def noisy(size_hw=(20, 30), *, seed=0):
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (*size_hw, 3), np.uint8)
    labels = random.integers(0, 4, size_hw, np.uint8)  # 3 is beyond the palette
    return ViewerUpdate(source="front", index=0, image_bgr=image, labels=labels)


def slowly_blended(update, *, alpha, hidden):
    """Pixel by pixel."""
    expected = update.image_bgr.astype(float)
    for y, x in np.ndindex(update.labels.shape):
        label = update.labels[y, x]
        if label not in hidden:
            color = np.array(PALETTE[label][::-1] if label < len(PALETTE) else (0, 0, 0))
            expected[y, x] = (1 - alpha) * expected[y, x] + alpha * color
    return expected


@pytest.mark.parametrize("hidden", [frozenset(), frozenset({1}), frozenset({0, 2, 200})])
@pytest.mark.parametrize("opacity", [0, 35, 100])
def test_an_overlay_blends_the_classes_that_are_on(opacity, hidden):
    frame = noisy()
    drawn = draw_view(frame, ViewSetting(opacity=opacity, hidden=hidden), PALETTE)
    expected = slowly_blended(frame, alpha=opacity / 100, hidden=hidden)
    assert np.abs(drawn - expected).max() <= 1
    untouched = np.isin(frame.labels, list(hidden))
    np.testing.assert_array_equal(drawn[untouched], frame.image_bgr[untouched])


def test_a_mask_has_the_colors_alone_and_black_for_what_is_off():
    frame = noisy()
    drawn = draw_view(frame, ViewSetting(view="mask", hidden=frozenset({1})), PALETTE)
    np.testing.assert_array_equal(drawn[frame.labels == 0], np.full((np.sum(frame.labels == 0), 3), PALETTE[0][::-1]))
    assert not drawn[frame.labels == 1].any()
    assert drawn[frame.labels == 2].any()


def test_the_frame_itself_is_never_painted_on():
    frame = noisy()
    before = frame.image_bgr.copy(), frame.labels.copy()
    for view in ("original", "overlay", "mask"):
        draw_view(frame, ViewSetting(view=view, hidden=frozenset({0})), PALETTE)
    np.testing.assert_array_equal(frame.image_bgr, before[0])
    np.testing.assert_array_equal(frame.labels, before[1])


def test_the_original_is_the_frame():
    frame = noisy()
    np.testing.assert_array_equal(draw_view(frame, ViewSetting(view="original"), PALETTE), frame.image_bgr)


@pytest.mark.parametrize("view", ["original", "overlay", "mask"])
@pytest.mark.parametrize(("width", "expected"), [(0, (90, 160)), (160, (90, 160)), (640, (90, 160)), (40, (22, 40))])
def test_a_picture_is_never_wider_than_wanted_nor_enlarged(view, width, expected):
    frame = noisy((90, 160))
    assert draw_view(frame, ViewSetting(view=view, width=width), PALETTE).shape == (*expected, 3)


@pytest.mark.parametrize("width", [100, 150, 160, 200, 299])
def test_scaling_keeps_what_is_there(width):
    """A slope comes out as the same slope, and single bright pixels are not lost between the rows that are kept."""
    slope = np.broadcast_to(np.linspace(0, 250, 600)[None, :, None], (300, 600, 3)).astype(np.uint8)
    image = draw_view(ViewerUpdate("front", 0, slope), ViewSetting(width=width), ())
    assert np.abs(image[5, 5:-5, 0] - np.linspace(0, 250, width)[5:-5]).max() <= 4
    dots = np.zeros((300, 600, 3), np.uint8)
    dots[::2, 1::2] = 255
    image = draw_view(ViewerUpdate("front", 0, dots), ViewSetting(width=width), ())
    assert image.mean() == pytest.approx(255 / 4, rel=0.05)
    assert image.std() < 1


def test_scaled_labels_are_not_mixed():
    frame = noisy((90, 160))
    drawn = draw_view(frame, ViewSetting(view="mask", width=50), PALETTE)
    colors = {tuple(color[::-1]) for color in PALETTE} | {(0, 0, 0)}
    assert {tuple(map(int, color)) for color in drawn.reshape(-1, 3)} <= colors


def cross(image):
    painted = image.copy()
    painted[5, :] = painted[:, 5] = 255
    return painted


def test_what_the_update_paints_is_blended_too():
    frame = update(60, labels=None, draw=cross)
    drawn = draw_view(frame, ViewSetting(opacity=50), ())
    assert set(drawn[5].ravel()) <= {177, 178}  # between 100 and 255
    np.testing.assert_array_equal(drawn[6:, 6:], frame.image_bgr[6:, 6:])
    mask = draw_view(frame, ViewSetting(view="mask", opacity=50), ())
    assert mask[5].min() == 255
    assert not mask[6:, 6:].any()


@pytest.mark.parametrize(("labels", "palette"), [(None, PALETTE), (np.zeros((36, 64), np.uint8), ())])
def test_a_frame_without_anything_to_show_is_shown_as_it_is(labels, palette):
    frame = update(labels=labels)
    np.testing.assert_array_equal(draw_view(frame, ViewSetting(view="mask"), palette), frame.image_bgr)


def test_a_png_keeps_every_pixel_and_a_jpeg_nearly():
    image = noisy((64, 64)).image_bgr
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(encode(image, "png"), np.uint8), 1), image)
    smooth = cv2.GaussianBlur(image, (0, 0), 5)
    decoded = cv2.imdecode(np.frombuffer(encode(smooth, "jpeg"), np.uint8), 1)
    assert np.abs(decoded.astype(int) - smooth).mean() < 2


def test_a_picture_too_large_for_jpeg_is_an_error_with_its_size():
    with pytest.raises(MediaError, match="70000x1 "):
        encode(np.zeros((1, 70_000, 3), np.uint8), "jpeg")


@pytest.mark.parametrize(
    ("image", "labels", "message"),
    [
        (np.zeros((4, 5), np.uint8), None, r"\(4, 5\) uint8, expected"),
        (np.zeros((4, 5, 4), np.uint8), None, "expected"),
        (np.zeros((4, 5, 3), np.float32), None, "float32, expected"),
        (np.zeros((0, 5, 3), np.uint8), None, "expected"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), np.uint8), r"labels are \(5, 4\).*\(4, 5\)"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.int64), "int64, expected"),
    ],
)
def test_an_update_that_does_not_fit_is_refused(image, labels, message):
    with pytest.raises(UsageError, match=message):
        ViewerUpdate(source="front", index=0, image_bgr=image, labels=labels)


@pytest.mark.parametrize("wrong", [{"clients": 0}, {"frames_per_second": -1.0}, {"jpeg_quality": 101}])
def test_limits_are_positive(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Limits(**wrong)
