"""Which scheme is opened by what."""

from __future__ import annotations

from typing import Protocol

from sfpp.runtime.errors import UsageError, did_you_mean
from sfpp.runtime.video.events import EventHandler
from sfpp.runtime.video.frames import Source
from sfpp.runtime.video.live.address import Address, address_from
from sfpp.runtime.video.live.camera import open_camera
from sfpp.runtime.video.live.gstreamer import open_csi, open_gst
from sfpp.runtime.video.live.raw import open_raw
from sfpp.runtime.video.live.stream import STREAM_SCHEMES, open_stream
from sfpp.runtime.video.live.synthetic import open_synthetic


class _Opener(Protocol):
    def __call__(self, address: Address, *, on_event: EventHandler) -> Source: ...


_OPENERS: dict[str, _Opener] = {
    "camera": open_camera,
    "csi": open_csi,
    "gst": open_gst,
    "raw": open_raw,
    "test": open_synthetic,
    **dict.fromkeys(STREAM_SCHEMES, open_stream),
}
SCHEMES = tuple(_OPENERS)


def open_uri(text: str, *, on_event: EventHandler) -> Source:
    """Open a camera, a stream, a pipeline, raw frames or the synthetic scene by its URI.

    Raises:
        UsageError: an unknown scheme, or an option that cannot be meant.
        MediaError: it cannot be opened, or delivers nothing.
        MissingDependencyError: reading it needs a library that is not installed.
    """
    address = address_from(text)
    opener = _OPENERS.get(address.scheme)
    if opener is None:
        hint = did_you_mean(address.scheme, SCHEMES)
        expected = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise UsageError(f"{address.shown}: nothing opens {address.scheme}://{hint}; expected {expected}, or a path")
    return opener(address, on_event=on_event)
