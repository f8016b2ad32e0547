"""Pictures of changing sizes brought to one size, for sinks whose receiver expects the first picture's for good."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.contract import InputSpec
from sfpp.runtime.events import Event, EventHandler
from sfpp.runtime.images import padded, place_frame
from sfpp.runtime.imports import import_cv2

_PURPOSE = "fitting pictures of another size"
_BLACK = 0
_NO_CLASS = 255  # what data sets give pixels that belong to no class


class FirstSize:
    """Brings every picture to the size of the first one: scaled as a whole, with bars where the shapes differ.

    Args:
        name: of the sink, for events.
        on_event: told each time that pictures begin to have another size.
    """

    def __init__(self, name: str, on_event: EventHandler) -> None:
        self._name = name
        self._on_event = on_event
        self._size_hw: tuple[int, int] | None = None
        self._last_hw: tuple[int, int] | None = None

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the first picture."""
        assert self._size_hw is not None, "no picture came yet"
        return self._size_hw

    def fit(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the picture, (H, W, 3) colors or (H, W) labels, uint8, at the first one's size.

        Colors are interpolated and their bars are black; labels keep their values and their bars are 255.
        """
        height, width = image.shape[:2]
        if self._size_hw is None:
            self._size_hw = self._last_hw = (height, width)
        if (height, width) != self._last_hw:
            self._last_hw = (height, width)
            self._tell(height, width)
        return image if (height, width) == self._size_hw else _letterboxed(image, self._size_hw)

    def _tell(self, height: int, width: int) -> None:
        first_height, first_width = self.size_hw
        same = (height, width) == self.size_hw
        how = "as at the beginning" if same else f"written at {first_width}x{first_height} as at the beginning"
        self._on_event(Event("size-changed", self._name, f"pictures are {width}x{height} (width x height) now, {how}"))


def _letterboxed(image: NDArray[np.uint8], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    place = place_frame((height, width), InputSpec("picture", *size_hw, resize="letterbox"))
    cv2: Any = import_cv2(purpose=_PURPOSE)
    colors = image.ndim == 3
    shrinks = max(place.scale_yx) < 1
    smooth = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(image, (place.width, place.height), interpolation=smooth if colors else cv2.INTER_NEAREST)
    return padded(resized, place, size_hw, color=_BLACK if colors else _NO_CLASS)
