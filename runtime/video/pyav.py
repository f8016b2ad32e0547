"""What reading and writing with PyAV share: the module itself, and pixels between FFmpeg's frames and BGR arrays."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import MissingDependencyError
from sfpp.runtime.images import with_even_sides

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream

# The number of BT.709 in H.264's tables of primaries, transfer and matrix.
BT709 = 1
FALLBACK_RATE = Fraction(25)
HIGHEST_RATE = 1000
_LENIENT_SINCE = 19


def import_av(*, purpose: str) -> Any:
    """Return the module ``av``; ``purpose`` begins the message when it cannot be had.

    Raises:
        MissingDependencyError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError("PyAV", extra="video", purpose=purpose) from error
    return av


def reading_options() -> dict[str, Any]:
    """Return the arguments of ``av.open`` with which titles that are not UTF-8 are no error."""
    import av

    # From version 19 on they never are, and the option is gone.
    before = int(av.__version__.partition(".")[0]) < _LENIENT_SINCE
    return {"metadata_errors": "replace"} if before else {}


def declared_rate(stream: VideoStream) -> Fraction:
    """Return the frames a second that a stream claims, 25 if it claims none that can be meant."""
    for rate in (stream.average_rate, stream.guessed_rate):
        # Where a container knows no rate, FFmpeg may report its clock's, such as 90 000.
        if rate and 0 < rate <= HIGHEST_RATE:
            return Fraction(rate)
    return FALLBACK_RATE


def upright_bgr(frame: VideoFrame) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 BGR, turned as the camera noted when it was held upright or upside down."""
    quarters = round(frame.rotation / 90)  # counter-clockwise, like rot90's
    image_bgr = cast(NDArray[np.uint8], frame.to_ndarray(format="bgr24"))
    return np.ascontiguousarray(np.rot90(image_bgr, quarters)) if quarters % 4 else image_bgr


def picture_from_bgr(image: NDArray[np.uint8]) -> VideoFrame:
    """Return (H, W, 3) uint8 BGR as what H.264 takes: YUV 4:2:0 in BT.709, odd sides grown by a row or column."""
    import av

    picture = av.VideoFrame.from_ndarray(with_even_sides(image), format="bgr24")
    return picture.reformat(format="yuv420p", dst_colorspace=BT709)
