"""Frames of images, lists, videos and cameras, taken by number."""

import numpy as np
import pytest

from sfpp.runtime.demo import demo_clip
from sfpp.runtime.errors import MediaError
from sfpp.runtime.pixels.pictures import write_image
from sfpp.tooling.frames import FrameSource, evenly_spaced, in_batches


@pytest.fixture
def folder(tmp_path):
    for index in range(10):
        write_image(tmp_path / f"frame{index}.png", np.full((4, 6, 3), index, np.uint8))
    return tmp_path


def test_spacing_is_even_and_holds_the_ends():
    assert evenly_spaced(range(10), 4) == [0, 3, 6, 9]
    assert evenly_spaced(range(10), 2) == [0, 9]
    assert evenly_spaced(range(10), 1) == [4]
    assert evenly_spaced(range(3), 3) == evenly_spaced(range(3), 8) == [0, 1, 2]
    for length in range(1, 30):
        for count in range(1, 30):
            chosen = evenly_spaced(range(length), count)
            assert len(chosen) == len(set(chosen)) == min(count, length)


def test_a_folder_can_be_taken_from_again_and_again(folder):
    source = FrameSource(str(folder))
    assert source.names == tuple(f"frame{index}" for index in range(10))
    for _ in range(2):
        found = list(source.take([9, 0]))
        assert [(each.name, each.index, each.file) for each in found] == [
            ("frame0", 0, folder / "frame0.png"),
            ("frame9", 9, folder / "frame9.png"),
        ]
        assert [int(each.image_bgr[0, 0, 0]) for each in found] == [0, 9]


def test_images_below_a_folder_are_told_apart_by_their_folders(tmp_path):
    for place in ("left/0001", "right/0001", "right/deep/0002", ".hidden/0003"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / f"{place}.png", np.zeros((4, 6, 3), np.uint8))
    source = FrameSource(str(tmp_path))
    assert source.names == ("left/0001", "0002", "right/0001")
    assert [frame.file.parent.name for frame in source.take([0, 1, 2])] == ["left", "deep", "right"]
    (tmp_path / "list.txt").write_text(f"left/0001.png\n{tmp_path}/right/0001.png\n")
    assert FrameSource(str(tmp_path / "list.txt")).names == ("left/0001", "right/0001")
    assert source.warnings == (f"{tmp_path} holds no pictures itself: those of 3 folders below it are read",)


def test_an_image_that_cannot_be_read_is_left_out_and_reported(folder):
    (folder / "frame3.png").write_bytes(b"nothing")
    reasons = []
    found = FrameSource(str(folder)).take([0, 3, 6], on_unreadable=reasons.append)
    assert [each.name for each in found] == ["frame0", "frame6"]
    assert len(reasons) == 1
    assert "frame3.png" in str(reasons[0])


def test_a_video_is_decoded_up_to_the_last_frame_that_is_wanted():
    source = FrameSource(str(demo_clip()))
    assert len(source.names) > 50
    for _ in range(2):
        found = list(source.take({2, 40}))
        assert [each.index for each in found] == [2, 40]
        assert [each.name for each in found] == [source.names[2], source.names[40]]
        assert {each.image_bgr.shape for each in found} == {(540, 960, 3)}


def test_a_camera_has_no_names_but_frames():
    source = FrameSource("test://?width=64&height=48")
    assert source.names == ()
    assert [each.index for each in source.take({0, 1})] == [0, 1]


def test_what_does_not_exist():
    with pytest.raises(MediaError, match="does not exist"):
        FrameSource("nowhere")


def test_batches(folder):
    found = in_batches(FrameSource(str(folder)).take(range(5)), 2)
    assert [len(each) for each in found] == [2, 2, 1]
