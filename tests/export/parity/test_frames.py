"""Which frames are compared on, and what is reported where they cannot be read."""

import numpy as np
import pytest

from sfpp.export.demo import demo_image
from sfpp.export.parity import parity
from sfpp.export.parity.comparing import _frames
from sfpp.export.parity.settings import ParitySettings
from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.pixels.pictures import write_image
from sfpp.tooling.frames import FrameSource


@pytest.fixture
def folder(tmp_path):
    for index in range(10):
        write_image(tmp_path / f"frame{index}.png", np.full((4, 6, 3), index, np.uint8))
    return tmp_path


def chosen(notify=print, task="segmentation", **options):
    settings = ParitySettings("model.onnx", **options)
    frames, total = _frames(FrameSource(settings.images or str(demo_image(task))), settings.frames, notify)
    return [frame.name for frame in frames], total


def test_frames_are_spread_evenly(folder):
    assert chosen(images=folder, frames=4) == (["frame0", "frame3", "frame6", "frame9"], 4)


def test_the_shipped_images_are_the_default():
    assert chosen() == (["street"], 1)
    assert chosen(task="pose") == (["person"], 1)


def test_an_image_that_cannot_be_read_is_skipped_and_reported(folder, exported):
    (folder / "frame3.png").write_bytes(b"nothing")
    lines = []
    assert chosen(lines.append, images=folder, frames=4)[0] == ["frame0", "frame6", "frame9"]
    assert len(lines) == 1
    assert lines[0].startswith("warning: skipped: ")
    assert "frame3.png" in lines[0]
    for file in folder.iterdir():
        file.write_bytes(b"nothing")
    with pytest.raises(MediaError, match=r"not one frame of .* can be read; give another"):
        parity(exported("original").path, images=folder, frames=2)


def test_what_cannot_be_meant_is_refused():
    for options, message in (
        ({"mode": "tight"}, "mode is 'tight', expected one of free, pinned, both"),
        ({"frames": 0}, "frames is 0, expected a whole number from 1"),
        ({"ignore": "255"}, "ignore is .*, expected values of the label images, whole numbers"),
    ):
        with pytest.raises(UsageError, match=message):
            ParitySettings("model.onnx", **options)
