"""A synthetic source, for trying things without a camera: a street that never was, with a frame counter."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import UsageError
from sfpp.runtime.events import EventHandler
from sfpp.runtime.video.frame import Decoded, Source
from sfpp.runtime.video.sources.address import Address, Options
from sfpp.runtime.video.sources.link import StampPace

EXAMPLE = "test://?width=960&height=540&fps=30&frames=300&seed=1"
_OPTIONS = ("width", "height", "fps", "frames", "seed", "pace")
_WIDTH, _HEIGHT, _RATE = 960, 540, Fraction(30)
_SMALLEST = 32
_MANY = 10**9
Color = tuple[int, int, int]  # BGR
_HORIZON = 0.45  # of the height
_LANES = (-0.62, -0.2, 0.2, 0.62)  # of the road's half width
_DASHES = 8
_DASHES_PER_FRAME = 0.012
_PEOPLE = 2
_ROAD, _GRASS, _WHITE, _TIRE, _SKIN = (96, 92, 92), (60, 120, 70), (225, 225, 225), (30, 30, 30), (130, 160, 200)
# Rows of a 3x5 font, three bits each.
_DIGITS = ("75557", "26227", "71747", "71717", "55711", "74717", "74757", "71111", "75757", "75717")
_COUNTER_DIGITS = 6


def open_synthetic(address: Address, *, on_event: EventHandler) -> Source:
    """Open ``test://``: frames by the clock like a camera's, or with ``pace=0`` as fast as they are taken.

    ``frames=N`` ends it after N. Raises as :func:`.open_source`.
    """
    options = Options(address, known=_OPTIONS, example=EXAMPLE)
    if address.place:
        raise UsageError(f"{address.shown}: test:// has options only, as in {EXAMPLE}")
    scene = Scene(
        width=options.integer("width", _WIDTH, least=_SMALLEST) or _WIDTH,
        height=options.integer("height", _HEIGHT, least=_SMALLEST) or _HEIGHT,
        seed=options.integer("seed", 0, least=0, most=_MANY) or 0,
    )
    rate = options.rate("fps") or _RATE
    count = options.integer("frames", None, most=_MANY)
    paced = options.flag("pace", default=True)
    seed = options.text("seed")
    name = "test" if seed is None else f"test-{seed}"
    closing = threading.Event()
    return Source(
        _frames(scene, rate=rate, count=count, paced=paced, closing=closing),
        kind="stream",
        name=name,
        # What comes by the clock may be dropped, so every frame has its own time.
        frames_per_second=None if paced else rate,
        count=count,
        live=paced,
        interrupt=closing.set,
        on_event=on_event,
    )


def _frames(
    scene: Scene, *, rate: Fraction, count: int | None, paced: bool, closing: threading.Event
) -> Generator[Decoded, None, None]:
    pace = StampPace(slack_s=float(1 / rate))
    index = 0
    while (count is None or index < count) and not closing.is_set():
        image_bgr = scene.draw(index)
        time_s = float(index / rate)
        if paced and closing.wait(pace.delay_s(time_s)):
            return
        yield Decoded(image_bgr, time_s, taken_s=time.monotonic())
        del image_bgr
        index += 1


class _Mover(NamedTuple):
    """A car, whose place is its lane, or a person, whose place is how near; where it begins, and its speed a frame."""

    place: float
    begin: float
    speed: float
    color: Color

    def at(self, index: int) -> float:
        """How far it has come in a frame, 0..1."""
        return (self.begin + index * self.speed) % 1


class Scene:
    """Draws any frame of the scene by its index; two scenes of one seed and size are equal.

    Args:
        width, height: in pixels, at least 32.
        seed: chooses houses, cars, people and the road's grain.
    """

    def __init__(self, *, width: int, height: int, seed: int) -> None:
        self._height, self._width = height, width
        self._horizon = round(height * _HORIZON)
        random = np.random.default_rng(seed)
        self._background = self._painted(random)

        def mover(place: float, slowest: float, fastest: float) -> _Mover:
            begin, speed = float(random.random()), float(random.uniform(slowest, fastest))
            return _Mover(place, begin, speed, tuple(random.integers(40, 230, 3).tolist()))

        self._cars = [mover(lane, 0.004, 0.01) for lane in _LANES]
        self._people = [mover(float(random.uniform(0.1, 0.5)), -0.006, 0.006) for _ in range(_PEOPLE)]

    def draw(self, index: int) -> NDArray[np.uint8]:
        """Return frame ``index`` as (H, W, 3) uint8 BGR."""
        image: NDArray[np.uint8] = self._background.copy()
        for dash in range(_DASHES):
            depth = (dash / _DASHES + index * _DASHES_PER_FRAME) % 1
            top, bottom = self._row(depth), self._row(min(1.0, depth + 0.4 / _DASHES))
            self._fill(image, top, bottom, 0, 0.02 * self._half_road(bottom), _WHITE)
        # The nearer ones cover the farther ones.
        for car in sorted(self._cars, key=lambda car: car.at(index)):
            self._draw_car(image, self._row(car.at(index)), car)
        for person in self._people:
            self._draw_person(image, 2 * person.at(index) - 1, person)
        draw_counter(image, index)
        return image

    def _painted(self, random: np.random.Generator) -> NDArray[np.uint8]:
        """Return what does not move."""
        image = np.empty((self._height, self._width, 3), np.uint8)
        fade = np.linspace(0, 1, self._horizon)[:, np.newaxis]
        image[: self._horizon] = ((1 - fade) * (200, 150, 90) + fade * (235, 215, 190)).astype(np.uint8)[:, np.newaxis]
        image[self._horizon :] = _GRASS
        left = 0
        while left < self._width:
            width = int(random.uniform(0.05, 0.12) * self._width) + 1
            top = self._horizon - int(random.uniform(0.1, 0.35) * self._height)
            image[top : self._horizon, left : left + width] = random.integers(70, 170, 3)
            left += width
        for row in range(self._horizon, self._height):
            self._fill(image, row, row + 1, 0, self._half_road(row), _ROAD)
        grain = random.integers(-6, 7, (self._height - self._horizon, self._width, 1), np.int16)
        image[self._horizon :] = np.clip(image[self._horizon :] + grain, 0, 255)
        return image

    def _draw_car(self, image: NDArray[np.uint8], bottom: int, car: _Mover) -> None:
        road = self._half_road(bottom)
        middle, tall = car.place * road, round(0.2 * road * self._width / 2)
        self._fill(image, bottom - tall, bottom, middle, 0.14 * road, car.color)
        self._fill(image, bottom - 7 * tall // 8, bottom - tall // 2, middle, 0.1 * road, _TIRE)
        for side in (-1, 1):
            self._fill(image, bottom - tall // 6, bottom, middle + side * 0.11 * road, 0.03 * road, _TIRE)

    def _draw_person(self, image: NDArray[np.uint8], middle: float, person: _Mover) -> None:
        bottom = self._row(0.3 + person.place)
        tall = max(4, round(0.25 * (bottom - self._horizon)) + self._height // 20)
        half = 2 * max(1, tall // 7) / self._width
        self._fill(image, bottom - 4 * tall // 5, bottom, middle, half, person.color)
        self._fill(image, bottom - tall, bottom - 4 * tall // 5, middle, half / 2, _SKIN)

    def _fill(self, image: NDArray[np.uint8], top: int, bottom: int, middle: float, half: float, color: Color) -> None:
        """Fill rows from top to bottom around a middle that, like half the width, is in half widths of the picture."""
        left, right = (round((1 + across) * self._width / 2) for across in (middle - half, middle + half))
        image[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = color

    def _row(self, depth: float) -> int:
        """The row of what is as near as ``depth`` says: 0 at the horizon, 1 at the lower edge."""
        return self._horizon + round((self._height - self._horizon) * depth**2)

    def _half_road(self, row: int) -> float:
        """Half the road's width in that row, in half widths of the picture."""
        return 0.04 + 0.9 * (row - self._horizon) / (self._height - self._horizon)


def draw_counter(image: NDArray[np.uint8], number: int) -> None:
    """Burn six digits into the upper left corner, white on black, in place; ``image`` is (H, W, 3) uint8."""
    digits = [
        [[int(bit) for bit in f"{int(row):03b}0"] for row in _DIGITS[int(digit)]]
        for digit in f"{number % 10**_COUNTER_DIGITS:0{_COUNTER_DIGITS}d}"
    ]
    scale = max(1, image.shape[0] // 90)
    dots = np.pad(np.concatenate(digits, axis=1), ((1, 1), (1, 0))).repeat(scale, 0).repeat(scale, 1)
    dots = dots[: image.shape[0], : image.shape[1]]
    image[: dots.shape[0], : dots.shape[1]] = (255 * dots[..., np.newaxis]).astype(np.uint8)
