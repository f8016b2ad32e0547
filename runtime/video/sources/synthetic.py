"""A synthetic source, for trying things without a camera: a street that never was, with a frame counter."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction

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
_ROAD, _GRASS, _WHITE, _TIRE = (96, 92, 92), (60, 120, 70), (225, 225, 225), (30, 30, 30)
# Rows of a 3x5 font, three bits each.
_DIGITS = ("75557", "26227", "71747", "71717", "55711", "74717", "74757", "71111", "75757", "75717")
_COUNTER_DIGITS = 6


def open_synthetic(address: Address, *, on_event: EventHandler) -> Source:
    """Open ``test://``: frames by the clock like a camera's, or with ``pace=0`` as fast as they are taken.

    ``frames=N`` ends it after N.

    Raises:
        UsageError: an option that cannot be meant.
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
        _frames(scene, name, rate=rate, count=count, paced=paced, closing=closing),
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
    scene: Scene, name: str, *, rate: Fraction, count: int | None, paced: bool, closing: threading.Event
) -> Generator[Decoded, None, None]:
    pace = StampPace(slack_s=float(1 / rate))
    index = 0
    while (count is None or index < count) and not closing.is_set():
        image_bgr = scene.draw(index)
        time_s = float(index / rate)
        if paced and closing.wait(pace.delay_s(time_s)):
            return
        yield Decoded(image_bgr, time_s, f"{name}-{index:06d}", time.monotonic())
        del image_bgr
        index += 1


@dataclass(frozen=True)
class _Mover:
    """A car, whose place is its lane, or a person, whose place is how near; where it begins, and its speed a frame."""

    place: float
    begin: float
    speed: float
    color: Color


class Scene:
    """Draws any frame of the scene by its index; two scenes of one seed and size are equal.

    Args:
        width, height: in pixels, at least 32.
        seed: chooses houses, cars, people and the road's grain.
    """

    def __init__(self, *, width: int, height: int, seed: int) -> None:
        self.width = width
        self.height = height
        random = np.random.default_rng(seed)
        self._horizon = round(height * _HORIZON)
        self._background = self._painted(random)
        self._cars = [
            _Mover(lane, float(random.random()), float(random.uniform(0.004, 0.01)), _color(random)) for lane in _LANES
        ]
        self._people = [
            _Mover(float(random.uniform(0.1, 0.5)), float(random.random()), float(random.uniform(-0.006, 0.006)), color)
            for color in (_color(random) for _ in range(_PEOPLE))
        ]

    def draw(self, index: int) -> NDArray[np.uint8]:
        """Return frame ``index`` as (H, W, 3) uint8 BGR."""
        image: NDArray[np.uint8] = self._background.copy()
        for dash in range(_DASHES):
            self._draw_dash(image, (dash / _DASHES + index * _DASHES_PER_FRAME) % 1)
        depths = [((car.begin + index * car.speed) % 1, car) for car in self._cars]
        # The nearer ones cover the farther ones.
        for depth, car in sorted(depths, key=lambda pair: pair[0]):
            self._draw_car(image, depth, car)
        for person in self._people:
            self._draw_person(image, (person.begin + index * person.speed) % 1, person)
        draw_counter(image, index)
        return image

    def _painted(self, random: np.random.Generator) -> NDArray[np.uint8]:
        """Return what does not move."""
        image = np.empty((self.height, self.width, 3), np.uint8)
        fade = np.linspace(0, 1, self._horizon)[:, np.newaxis]
        image[: self._horizon] = ((1 - fade) * (200, 150, 90) + fade * (235, 215, 190)).astype(np.uint8)[:, np.newaxis]
        image[self._horizon :] = _GRASS
        left = 0
        while left < self.width:
            width = int(random.uniform(0.05, 0.12) * self.width) + 1
            top = self._horizon - int(random.uniform(0.1, 0.35) * self.height)
            image[top : self._horizon, left : left + width] = random.integers(70, 170, 3)
            left += width
        for row in range(self._horizon, self.height):
            half = self._half_road(row)
            image[row, self._column(-half) : self._column(half)] = _ROAD
        grain = random.integers(-6, 7, (self.height - self._horizon, self.width, 1), np.int16)
        image[self._horizon :] = np.clip(image[self._horizon :] + grain, 0, 255)
        return image

    def _draw_dash(self, image: NDArray[np.uint8], depth: float) -> None:
        top, bottom = self._row(depth), self._row(min(1.0, depth + 0.4 / _DASHES))
        half = 0.02 * self._half_road(bottom)
        image[top:bottom, self._column(-half) : self._column(half) + 1] = _WHITE

    def _draw_car(self, image: NDArray[np.uint8], depth: float, car: _Mover) -> None:
        bottom = self._row(depth)
        half_road = self._half_road(bottom)
        half, middle = 0.14 * half_road, car.place * half_road
        tall = round(0.2 * half_road * self.width / 2)
        left, right = self._column(middle - half), self._column(middle + half)
        body = max(0, bottom - tall)
        image[body:bottom, left:right] = car.color
        image[body + tall // 8 : body + tall // 2, left + (right - left) // 8 : right - (right - left) // 8] = _TIRE
        image[bottom - tall // 6 : bottom, left : left + (right - left) // 5] = _TIRE
        image[bottom - tall // 6 : bottom, right - (right - left) // 5 : right] = _TIRE

    def _draw_person(self, image: NDArray[np.uint8], across: float, person: _Mover) -> None:
        bottom = self._row(0.3 + person.place)
        tall = max(4, round(0.25 * (bottom - self._horizon)) + self.height // 20)
        middle, half = round(across * self.width), max(1, tall // 7)
        top = max(0, bottom - tall)
        image[top + tall // 5 : bottom, max(0, middle - half) : middle + half] = person.color
        image[top : top + tall // 5, max(0, middle - half // 2) : middle + half // 2 + 1] = (130, 160, 200)

    def _row(self, depth: float) -> int:
        """The row of what is as near as ``depth`` says: 0 at the horizon, 1 at the lower edge."""
        return self._horizon + round((self.height - self._horizon) * depth**2)

    def _half_road(self, row: int) -> float:
        """Half the road's width in that row, in half widths of the picture."""
        return 0.04 + 0.9 * (row - self._horizon) / (self.height - self._horizon)

    def _column(self, across: float) -> int:
        """The column of what lies so far from the middle, in half widths of the picture."""
        return min(max(round((1 + across) * self.width / 2), 0), self.width)


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


def _color(random: np.random.Generator) -> Color:
    blue, green, red = (int(value) for value in random.integers(40, 230, 3))
    return blue, green, red
