"""A scene that a camera moves over, and a network that knows its classes by color."""

import dataclasses
from fractions import Fraction

import cv2
import numpy as np

from sfpp.runtime import InputSpec, Segmenter
from sfpp.runtime.backends import FunctionBackend
from sfpp.runtime.video.frame import Decoded, Source
from tests.runtime.video.clips import CONTRACT

ROWS, COLUMNS, STRIDE = 96, 128, 4


def scene(seed, *, size_hw=(400, 600), blob=24):
    """A large picture, (H, W, 3) uint8 BGR: blobs of three colors with a texture that flow can hold on to."""
    rng = np.random.default_rng(seed)
    height, width = size_hw
    coarse = rng.normal(size=(-(-height // blob), -(-width // blob), 3)).astype(np.float32)
    color = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    texture = cv2.GaussianBlur(rng.normal(size=size_hw).astype(np.float32), (0, 0), 3)
    texture *= 12 / texture.std()
    winner = np.eye(3, dtype=np.float32)[color.argmax(axis=2)]
    return np.clip(110 + 60 * winner + texture[..., np.newaxis], 0, 255).astype(np.uint8)


def window(picture, top, left, size_hw=(ROWS, COLUMNS)):
    """The part of a picture that a camera at (top, left), in pixels and their parts, sees."""
    height, width = size_hw
    center = left + (width - 1) / 2, top + (height - 1) / 2
    return cv2.getRectSubPix(picture, (width, height), center)


def pan(count, *, velocity=(1.0, 2.0), seed=0, size_hw=(ROWS, COLUMNS), begin=(50, 50)):
    """Frames of a camera that moves by ``velocity`` pixels (down, across) a frame."""
    picture = scene(seed)
    return [window(picture, begin[0] + velocity[0] * i, begin[1] + velocity[1] * i, size_hw) for i in range(count)]


class Network:
    """Tells the strongest color of each cell of 4x4 pixels, and counts what it was asked.

    Args:
        rows, columns: of its input.
        batch: frames at a time.
        contract: fields that differ.
        work: called with the frames, before each answer.
    """

    def __init__(self, rows=ROWS, columns=COLUMNS, *, batch=1, work=lambda frames: None, **contract):
        self.asked = []
        self._work = work
        self._shape = batch, -(-rows // STRIDE), STRIDE, -(-columns // STRIDE), STRIDE, 3
        spec = InputSpec("frame", rows, columns, batch=batch)
        spec = dataclasses.replace(spec, **contract.pop("input", {}))
        self.model = Segmenter(
            FunctionBackend(lambda inputs: self.run(inputs), metadata={}),
            dataclasses.replace(CONTRACT, input=spec, **contract),
        )

    @property
    def runs(self):
        return len(self.asked)

    def run(self, inputs):
        frames = inputs["frame"]
        self.asked.append(frames.copy())
        self._work(frames)
        cells = frames.astype(np.float32).reshape(self._shape).mean(axis=(2, 4))
        return {"logits": (cells.transpose(0, 3, 1, 2) - 128) / 8}


def video(frames, *, rate=25, times=None, kind="video", name="clip", live=False):
    """A source of these frames."""

    def decoded():
        for index, frame in enumerate(frames):
            yield Decoded(frame, index / rate if times is None else times[index], f"{name}-{index}")

    return Source(decoded(), kind=kind, name=name, frames_per_second=Fraction(rate), count=len(frames), live=live)
