"""What the pipeline hands to the viewer, and how much the viewer does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from sfpp.runtime.errors import UsageError
from sfpp.runtime.images import Image
from sfpp.runtime.labels import Labels
from sfpp.runtime.limits import limit


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
        labels_age_ms: the same of the frame that the network saw, which is an earlier one where labels were carried.
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
    labels_age_ms: float | None = None
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
class Limits:
    """Bounds of the viewer's work.

    Attributes:
        frames_per_second: pictures that a page gets, at most; each view setting is drawn so often at most.
        width: of pictures in pixels where a page does not ask for another one with ``?width=``.
        largest_width: the most that a page can ask for.
        jpeg_quality: of the pictures, 1..100.
        clients: pages that may be open at once.
        connections: open connections of those who may look, their pages and other requests.
        strangers: open connections that have shown no token, or come to no request; the oldest goes for a new one.
        strangers_per_address: the same of one address.
        stranger_s: how long such a connection may be open.
        stalled_s: a connection whose other end takes nothing of what it is sent is closed after so many seconds.
        kept_bytes: of drawn views that are kept for pages that ask for the same.
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
    clients: int = field(default_factory=lambda: limit("PAGES"))
    connections: int = field(default_factory=lambda: limit("CONNECTIONS"))
    strangers: int = field(default_factory=lambda: limit("STRANGERS"))
    strangers_per_address: int = field(default_factory=lambda: limit("STRANGERS_PER_ADDRESS"))
    stranger_s: float = 10.0
    stalled_s: float = 15.0
    kept_bytes: int = field(default_factory=lambda: limit("KEPT_BYTES"))
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
