import threading

import numpy as np
import pytest

from sfpp.runtime.video import open_source
from sfpp.runtime.video.sources.synthetic import _DIGITS, Scene, draw_counter


def number_in(image):
    """Read the counter: the dots' size from its height, then each digit from its dots."""
    scale = max(1, image.shape[0] // 90)
    dots = image[scale : 6 * scale : scale, scale : (1 + 6 * 4) * scale : scale].mean(axis=2) > 127
    glyphs = ["".join(str(int(row @ [4, 2, 1])) for row in dots[:, 4 * digit : 4 * digit + 3]) for digit in range(6)]
    return int("".join(str(_DIGITS.index(glyph)) for glyph in glyphs))


@pytest.mark.parametrize("number", [0, 7, 123456, 908070, 999999])
@pytest.mark.parametrize("size_hw", [(32, 32), (192, 320), (540, 960), (1080, 1920)])
def test_the_counter_can_be_read(number, size_hw):
    image = np.full((*size_hw, 3), 90, np.uint8)
    draw_counter(image, number)
    assert number_in(image) == number
    assert (image[-1, -1] == 90).all()


def test_frames_are_numbered_and_deterministic():
    with open_source("test://?width=320&height=192&frames=5&seed=3&pace=0&fps=10") as source:
        assert (source.kind, source.name, source.count, source.live, source.frames_per_second) == (
            "stream",
            "test-3",
            5,
            False,
            10,
        )
        assert source.size_hw == (192, 320)
        frames = list(source)
    assert [number_in(frame.image_bgr) for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert frames[4].name == "test-3-000004"
    same, other = (Scene(width=320, height=192, seed=seed) for seed in (3, 4))
    np.testing.assert_array_equal(same.draw(4), frames[4].image_bgr)  # whatever was drawn before
    assert (other.draw(4) != frames[4].image_bgr).mean() > 0.2


def test_something_moves_and_something_does_not():
    scene = Scene(width=320, height=192, seed=0)
    first, later = scene.draw(0)[40:], scene.draw(10)[40:]  # below the counter
    changed = (first != later).any(axis=2).mean()
    assert 0.002 < changed < 0.2
    np.testing.assert_array_equal(scene.draw(0)[40:], first)  # drawing leaves the background alone


@pytest.mark.parametrize("size_hw", [(32, 32), (33, 77), (540, 960)])
def test_any_size_can_be_drawn_at_any_time(size_hw):
    scene = Scene(width=size_hw[1], height=size_hw[0], seed=5)
    for index in (0, 1, 50, 333, 1_000_001):
        assert scene.draw(index).shape == (*size_hw, 3)


def test_what_lies_above_the_picture_is_not_drawn_into_it():
    image = np.zeros((32, 64, 3), np.uint8)
    Scene(width=64, height=32, seed=0)._fill(image, -20, -5, 0.0, 0.5, (1, 2, 3))
    assert not image.any()


def test_it_goes_by_the_clock_and_closing_ends_the_wait():
    source = open_source("test://?width=32&height=32&fps=0.001")
    assert (source.live, source.count, source.frames_per_second, source.name) == (True, None, None, "test")
    frames = iter(source)
    next(frames)
    done = threading.Event()

    def take():
        assert list(frames) == []
        done.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not done.wait(0.05)  # the next frame is due in a quarter of an hour
    source.close()
    assert done.wait(20)
    thread.join()
