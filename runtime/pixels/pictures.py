"""Files of pictures: read whole and upright, whatever their kind, and written whole or not at all."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import MediaError, MissingDependencyError
from sfpp.runtime.files import whole_file
from sfpp.runtime.images import Image, bgr_from_frame
from sfpp.runtime.imports import CV2_PIXELS, cv2_text, import_cv2
from sfpp.runtime.limits import advice
from sfpp.runtime.pixels.orientation import orientation_of, turned_upright

_MANY_BYTES = 2**26
_SIGNATURES = (
    ("PNG", 0, b"\x89PNG\r\n"),
    ("JPEG", 0, b"\xff\xd8\xff"),
    ("GIF", 0, b"GIF8"),
    ("BMP", 0, b"BM"),
    ("TIFF", 0, b"II*\0"),
    ("TIFF", 0, b"MM\0*"),
    ("WebP", 8, b"WEBP"),
    ("JPEG 2000", 4, b"jP  "),
    ("JPEG 2000", 0, b"\xff\x4f\xff\x51"),
    ("JPEG XL", 4, b"JXL "),
    ("JPEG XL", 0, b"\xff\x0a"),
)
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2"}
_MOVING_BRANDS = (b"hevc", b"hevx", b"msf1", b"avis")


def read_image(path: str | os.PathLike[str]) -> Image:
    """Read a picture as (H, W, 3) uint8 BGR, upright; raises as :func:`read_picture`."""
    return read_picture(path)[0]


def read_picture(path: str | os.PathLike[str]) -> tuple[Image, str | None]:
    """Read a picture as (H, W, 3) uint8 BGR, turned upright as its data say; return what there is to say of it too.

    Grey and 16-bit ones are converted; 16-bit values that only take up 10, 12 or 14 bits, as cameras write them, are
    taken for such. Of several pictures in a file, the first is read. HEIC takes the package pillow-heif.

    Raises:
        MediaError: the file cannot be read or is not a picture that can be decoded here.
        MissingDependencyError: it is HEIC, and pillow-heif is not installed.
    """
    cv2 = import_cv2(purpose="reading pictures")
    try:
        # Bytes rather than cv2.imread, which cannot open non-ASCII paths on Windows and prints warnings of its own.
        data = Path(path).read_bytes()
        kind = picture_format(data)
        if kind == "HEIC":
            return _from_heic(path, data), None
        if kind == "PNG" and (claimed := claimed_bytes(data)):
            raise MediaError(
                f"{path} is a damaged PNG file: a part of it claims {claimed} bytes, and it has {len(data)}"
            )
        encoded = np.frombuffer(data, np.uint8)
        deep = kind == "TIFF" or (kind == "PNG" and data[24:25] == b"\x10")
        image: NDArray[Any] | None = None
        orientation = orientation_of(kind, data)
        if encoded.size:
            as_stored = 0 if orientation is None else cv2.IMREAD_IGNORE_ORIENTATION
            depth = cv2.IMREAD_ANYDEPTH if deep else 0
            image = cv2.imdecode(encoded, cv2.IMREAD_COLOR | as_stored | depth)
    except OSError as error:
        raise MediaError(f"cannot read {path}: {error.strerror or error}") from error
    except cv2.error as error:
        reason = _cv2_reason(error)
        if "CV_IO_MAX_IMAGE_PIXELS" in reason:
            reason = f"it has more pixels than {os.environ[CV2_PIXELS]}; {advice('PIXELS')}"
        raise MediaError(f"cannot decode {path}: {reason}") from error
    if image is None:
        what = (
            f"not a picture ({len(data)} bytes)" if kind is None else f"a damaged {kind} file, or one of a newer kind"
        )
        raise MediaError(f"{path} is {what}: OpenCV {cv2.__version__} cannot decode it; give a JPEG or a PNG")
    image = image if orientation is None else turned_upright(image, orientation)
    notes = ["the file holds several pictures; the first is read"] if _holds_several(kind, data) else []
    if image.dtype == np.uint16:
        bits = _bits_used(int(image.max()))
        if bits < 16:
            notes.append(f"its 16-bit values go up to {image.max()}, so they are taken for {bits} bits")
        image = (image >> (bits - 8)).astype(np.uint8)
    elif image.dtype != np.uint8:
        raise MediaError(f"{path} holds {image.dtype} values, expected 8 or 16 bits; convert it to a PNG")
    return image, "; ".join(notes) or None


def claimed_bytes(png: bytes) -> int:
    """Return how many bytes a part of a PNG claims that are not there, if they are many: OpenCV takes memory for them.

    0 for any other PNG; one that is only cut off may be decoded in part.
    """
    place = 8
    while place + 8 <= len(png):
        length = int.from_bytes(png[place : place + 4], "big")
        place += 12 + length
        if length > _MANY_BYTES and place > len(png):
            return length
    return 0


def _bits_used(largest: int) -> int:
    return next(bits for bits in (10, 12, 14, 16) if largest < 2**bits) if largest else 16


def picture_format(data: bytes) -> str | None:
    """Name the format of a picture's file by its first bytes; None for none that is known, or a moving picture."""
    if data[4:8] == b"ftyp":
        end = min(len(data), int.from_bytes(data[:4], "big"))
        brands = {data[place : place + 4] for place in range(8, end, 4)}
        if data[8:12] in _MOVING_BRANDS:
            return None
        return "AVIF" if b"avif" in brands else ("HEIC" if brands & _HEIC_BRANDS else None)
    found = (name for name, place, mark in _SIGNATURES if data[place : place + len(mark)] == mark)
    return next(found, None)


def _holds_several(kind: str | None, data: bytes) -> bool:
    """Whether a file says that it has more than one picture: an APNG, an animated WebP or GIF, a TIFF of pages."""
    if kind == "PNG":
        return b"acTL" in data[: data.find(b"IDAT")]
    if kind == "GIF":
        return data.count(b"\x21\xf9\x04") > 1  # each picture's graphic control
    if kind == "WebP":
        return data[12:16] == b"VP8X" and bool(data[20] & 2)
    if kind == "TIFF":
        order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
        first = int.from_bytes(data[4:8], order)
        entries = int.from_bytes(data[first : first + 2], order)
        place = first + 2 + 12 * entries
        return int.from_bytes(data[place : place + 4], order) > 0
    return False


def _from_heic(path: str | os.PathLike[str], data: bytes) -> Image:
    try:
        import pillow_heif
    except ImportError as error:
        purpose = f"reading {Path(path).name}, which is HEIC as phones write it,"
        raise MissingDependencyError("pillow-heif", extra="heic", purpose=purpose) from error
    try:
        # Whole and upright: phones store tiles, of which other readers see the first.
        opened = pillow_heif.open_heif(io.BytesIO(data))
        image = np.asarray(opened)
    except (ValueError, RuntimeError, OSError, SyntaxError) as error:
        raise MediaError(f"cannot decode {path}: {error}") from error
    return bgr_from_frame(image[..., [2, 1, 0, 3][: image.shape[2]]] if image.ndim == 3 else image)


def write_image(path: str | os.PathLike[str], image: NDArray[Any], *, settled: bool = True) -> None:
    """Write (H, W, 3) uint8 BGR or (H, W) uint8; the suffix chooses the format; the file appears whole or not at all.

    Args:
        path: the file.
        image: what is written.
        settled: as for :func:`whole_file`.

    Raises:
        MediaError: OpenCV does not write this format or this kind of array.
        SfppError: the folder does not exist, or the disk is full.
    """
    cv2 = import_cv2(purpose="writing pictures")
    if image.dtype != np.uint8 or image.ndim not in (2, 3):  # OpenCV would convert other types without a word
        raise MediaError(f"cannot write {path}: the array is {image.dtype} {image.shape}, expected uint8 (H, W[, 3])")
    suffix = Path(path).suffix
    try:
        written, encoded = cv2.imencode(cv2_text(suffix), image)
    except cv2.error as error:
        raise MediaError(f"cannot write {path}: {_cv2_reason(error)}; give a name that ends in .png or .jpg") from error
    if not written:
        raise MediaError(f"cannot write {path}: OpenCV failed to encode it as {suffix}; try .png")
    with whole_file(path, settled=settled) as temporary:
        temporary.write_bytes(encoded.tobytes())


def _cv2_reason(error: Exception) -> str:
    return str(getattr(error, "err", "") or error).strip()
