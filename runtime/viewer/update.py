"""What the pipeline hands to the viewer, what every page shows, and how much the viewer does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from sfpp.runtime.contract import MOST_CLASSES, Task
from sfpp.runtime.errors import UsageError
from sfpp.runtime.images import Image
from sfpp.runtime.labels import Labels
from sfpp.runtime.model import SelfTestState
from sfpp.runtime.overlay import Palette
from sfpp.runtime.skeleton import SIDE_COLORS_BGR

_SIDE_NAMES = {"left": "Left side", "right": "Right side", "middle": "Middle"}


@dataclass(frozen=True, eq=False)
class ViewerUpdate:
    """One finished frame. Arrays are kept as they are, without a copy, so nobody may write into them afterwards.

    Attributes:
        source: the name of where the frame comes from, without credentials.
        index: of the frame within its source, from 0.
        image_bgr: (H, W, 3) uint8 BGR.
        labels: (H, W) uint8, a class of each pixel; None where there are none.
        shares: of the frame's pixels, 0..1, by class name.
        people: how many there are in the frame; None where they are not counted.
        draw: paints what else there is to see, such as skeletons, onto a picture of the frame's size and returns a new
            one. Called in the viewer's thread, and only if a page is open.
        stages_ms: how long each stage took for this frame, in the order of the pipeline.
        age_ms: the time from the frame's coming until now; None if unknown.
        frames_per_second: answers of this source; None if unknown.

    Raises:
        UsageError: an image that is not (H, W, 3) uint8, or labels of another size.
    """

    source: str
    index: int
    image_bgr: Image
    labels: Labels | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    people: int | None = None
    draw: Callable[[Image], Image] | None = None
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    age_ms: float | None = None
    frames_per_second: float | None = None

    def __post_init__(self) -> None:
        image = self.image_bgr
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise UsageError(
                f"the image is {image.shape} {image.dtype}, expected (height, width, 3) uint8 in BGR order"
            )
        if self.labels is not None and (self.labels.shape != image.shape[:2] or self.labels.dtype != np.uint8):
            raise UsageError(
                f"the labels are {self.labels.shape} {self.labels.dtype}, expected {image.shape[:2]} uint8 "
                "(height, width) like the image"
            )

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the frame in pixels."""
        height, width = self.image_bgr.shape[:2]
        return height, width


@dataclass(frozen=True)
class Scene:
    """What every page shows.

    Attributes:
        task: ``segmentation`` has classes that can be switched off, ``pose`` skeletons.
        classes: the classes' names.
        palette: an (R, G, B) color, 0..255, for each class.
        title: a line about the model.
        can_stop: whether a page may ask the run to end.
        self_test: the model's; None where nothing is known of it.

    Raises:
        UsageError: another number of colors than of classes, or too many of them.
    """

    task: Task = "segmentation"
    classes: tuple[str, ...] = ()
    palette: Palette = ()
    title: str = ""
    can_stop: bool = False
    self_test: SelfTestState | None = None

    def __post_init__(self) -> None:
        if len(self.classes) != len(self.palette) or len(self.classes) > MOST_CLASSES:
            raise UsageError(
                f"{len(self.classes)} classes and {len(self.palette)} colors given, "
                f"expected one color for each class and at most {MOST_CLASSES}"
            )

    def legend(self) -> list[tuple[str, str]]:
        """Return names and colors as ``#rrggbb``: of the classes, or of the sides of a skeleton."""
        if self.task == "pose":
            return [(_SIDE_NAMES[side], _hex(bgr[::-1])) for side, bgr in SIDE_COLORS_BGR.items()]
        return [(name, _hex(rgb)) for name, rgb in zip(self.classes, self.palette, strict=True)]


def _hex(rgb: tuple[int, ...]) -> str:
    return "#" + "".join(f"{int(value):02x}" for value in rgb)


@dataclass(frozen=True)
class Limits:
    """Bounds of the viewer's work.

    Attributes:
        frames_per_second: pictures that a page gets, at most; each view setting is drawn so often at most.
        width: of pictures in pixels where a page does not ask for another one with ``?width=``.
        largest_width: the most that a page can ask for.
        jpeg_quality: of the pictures, 1..100.
        clients: pages that may be open at once.
        connections: open connections, those of pages and other requests.
        heartbeat_s: a page that does not answer for so long and half of it again has vanished.
        idle_s: a connection that asks for nothing is closed after so many seconds.
        fresh_s: the pipeline is healthy as long as its last frame is not older.
        held: frames that are kept for pages that have paused; the page that paused first loses its own.

    Raises:
        UsageError: a bound that is not positive, or a JPEG quality above 100.
    """

    frames_per_second: float = 30.0
    width: int = 1280
    largest_width: int = 3840
    jpeg_quality: int = 80
    clients: int = 64
    connections: int = 192
    heartbeat_s: float = 10.0
    idle_s: float = 20.0
    fresh_s: float = 10.0
    held: int = 8

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise UsageError(f"{name} is {value}, expected more than 0")
        if self.jpeg_quality > 100:
            raise UsageError(f"jpeg_quality is {self.jpeg_quality}, expected 1 to 100")
