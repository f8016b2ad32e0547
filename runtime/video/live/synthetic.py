"""A synthetic source, for trying things without a camera."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from fractions import Fraction

from sfpp.runtime.errors import UsageError
from sfpp.runtime.video.events import EventHandler
from sfpp.runtime.video.frames import Decoded, Source
from sfpp.runtime.video.live.address import Address, Options
from sfpp.runtime.video.live.pace import Pace
from sfpp.runtime.video.live.scene import Scene

EXAMPLE = "test://?width=960&height=540&fps=30&frames=300&seed=1"
_OPTIONS = ("width", "height", "fps", "frames", "seed", "pace")
_WIDTH, _HEIGHT, _RATE = 960, 540, Fraction(30)
_SMALLEST = 32
_MANY = 10**9


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
    pace = Pace(slack_s=float(1 / rate))
    index = 0
    while (count is None or index < count) and not closing.is_set():
        image_bgr = scene.draw(index)
        time_s = float(index / rate)
        if paced and closing.wait(pace.delay_s(time_s)):
            return
        yield Decoded(image_bgr, time_s, f"{name}-{index:06d}", time.monotonic())
        del image_bgr
        index += 1
