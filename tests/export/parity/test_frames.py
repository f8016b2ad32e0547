"""Which frames are taken, and what happens to those that cannot be read."""

import numpy as np
import pytest

from sfpp.export.parity.frames import Frames, chunks, spread
from sfpp.runtime.demo import demo_clip
from sfpp.runtime.errors import MediaError
from sfpp.runtime.images import write_image


@pytest.fixture
def folder(tmp_path):
    for index in range(10):
        write_image(tmp_path / f"frame{index}.png", np.full((4, 6, 3), index, np.uint8))
    return tmp_path


def names(images, count, notify=lambda line: None):
    return [frame.name for frame in Frames(images, count=count, task="segmentation", notify=notify)]


def test_spread_is_even_and_holds_the_ends():
    assert spread(range(10), 4) == [0, 3, 6, 9]
    assert spread(range(10), 2) == [0, 9]
    assert spread(range(10), 1) == [4]
    assert spread(range(3), 3) == spread(range(3), 8) == [0, 1, 2]
    for length in range(1, 30):
        for count in range(1, 30):
            chosen = spread(range(length), count)
            assert len(chosen) == len(set(chosen)) == min(count, length)


def test_a_folder(folder):
    assert names(folder, 4) == ["frame0", "frame3", "frame6", "frame9"]
    frames = list(Frames(folder, count=2, task="segmentation", notify=print))
    assert [int(frame.image_bgr[0, 0, 0]) for frame in frames] == [0, 9]


def test_a_picture_that_cannot_be_read_is_skipped_and_told(folder):
    (folder / "frame3.png").write_bytes(b"nothing")
    told = []
    assert names(folder, 4, told.append) == ["frame0", "frame6", "frame9"]
    assert len(told) == 1
    assert "frame3.png" in told[0]
    for file in folder.iterdir():
        file.write_bytes(b"nothing")
    with pytest.raises(MediaError, match=r"not one frame of .* can be read; give another"):
        names(folder, 4)


def test_a_video_is_decoded_once_up_to_the_last_frame():
    frames = Frames(str(demo_clip()), count=3, task="segmentation", notify=print)
    assert frames.total == 3
    shapes = {frame.image_bgr.shape for frame in frames}
    assert len(shapes) == 1


def test_the_shipped_pictures_are_the_default():
    (street,) = Frames(None, count=8, task="segmentation", notify=print)
    (person,) = Frames(None, count=8, task="pose", notify=print)
    assert (street.name, person.name) == ("street", "person")


def test_what_does_not_exist():
    with pytest.raises(MediaError, match="does not exist"):
        Frames("nowhere", count=1, task="segmentation", notify=print)


def test_chunks(folder):
    found = chunks(iter(Frames(folder, count=5, task="segmentation", notify=print)), 2)
    assert [len(each) for each in found] == [2, 2, 1]
