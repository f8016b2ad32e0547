"""The texts of a self-test: a frame made small and an answer, packed for the contract and unpacked again.

A contract comes from whoever wrote the file, so what is unpacked is bounded before anything is made of it.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.contract import InputSpec, ModelContract, SelfTest
from sfpp.runtime.errors import ContractError
from sfpp.runtime.images import Image
from sfpp.runtime.imports import import_cv2
from sfpp.runtime.pixels.pictures import claimed_bytes

# Pixels of a stored frame's longer side: the first with which the PNG, before base64, has few enough bytes.
_SIDES = (160, 144, 128, 112, 96, 80, 64, 48, 32)
_MOST_PNG_BYTES = 18_000
# A later version may store larger ones, but not without end.
_LONGEST_SIDE = 512
# Of so many classes' masks at most: their bits fit into a contract whatever they are.
MOST_MASKS = 20
# A PNG begins with its signature and the header's length and name, and then has its width and height.
_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


def packed(small_bgr: Image, answer: NDArray[Any], *, threshold: float) -> SelfTest:
    """Return the self-test of a small frame (h, w, 3) uint8 BGR and its answer: labels, masks or keypoints.

    Raises:
        ContractError: a threshold outside 0..1.
    """
    frame_text = _text(_png(small_bgr))
    is_masks = answer.dtype == np.uint8 and answer.ndim == 3
    stored = np.packbits(answer) if is_masks else _stored_type(answer)
    answer_text = _text(zlib.compress(stored.tobytes(), 9))
    return SelfTest(frame_text, answer_text, _sha256(frame_text, answer_text), threshold)


def unpacked(test: SelfTest, contract: ModelContract) -> tuple[Image, NDArray[Any]]:
    """Return the frame (h, w, 3) uint8 BGR, and the answer.

    That is labels (h, w) uint8; of a multi-label model masks (K, h, w) uint8 of its first classes, ``MOST_MASKS`` at
    most; or keypoints (K, 3) x, y and score.

    Raises:
        ContractError: damaged, or no frame and answer of such a model.
    """
    # Before any decoder sees them: OpenCV's complains on stderr.
    if test.sha256 != _sha256(test.frame, test.answer):
        raise _wrong("its texts are not those that were stored (another SHA-256)")
    frame_bgr = _frame_from(_bytes(test.frame, "frame"))
    size_hw = frame_bgr.shape[:2]
    if contract.multi_label:
        shape = (min(len(contract.classes), MOST_MASKS), *size_hw)
        count = math.prod(shape)
        bits = _array_from(test.answer, (-(-count // 8),), np.uint8)
        return frame_bgr, np.unpackbits(bits, count=count).reshape(shape)
    if contract.keypoints is None:
        labels = _array_from(test.answer, size_hw, np.uint8)
        if labels.max() >= len(contract.classes):
            raise _wrong(f"it expects the label {labels.max()}, but there are {len(contract.classes)} classes")
        return frame_bgr, labels
    keypoints = _array_from(test.answer, (len(contract.keypoints.names), 3), np.float32)
    if not np.isfinite(keypoints).all():
        raise _wrong("it expects keypoints that are not finite numbers")
    return frame_bgr, keypoints


def small_frame(image_bgr: Image, spec: InputSpec) -> Image:
    """Return an image's middle in the aspect ratio of the model's input, as large as a contract can hold.

    Cut rather than stretched or bordered: a person keeps their shape, and the tokens of a border, which are all alike,
    would be merged as rounding has it.

    Args:
        image_bgr: (H, W, 3) uint8; it is never enlarged.
        spec: the model's input.
    """
    cv2 = import_cv2(purpose="making a self-test")
    cut = _middle(image_bgr, spec.width / spec.height)
    longest = max(cut.shape[:2])
    for side in _SIDES:
        scale = min(side, longest, max(spec.size_hw)) / longest
        height, width = (max(1, round(length * scale)) for length in cut.shape[:2])
        small: Image = cv2.resize(cut, (width, height), interpolation=cv2.INTER_AREA)
        if len(_png(small)) <= _MOST_PNG_BYTES:
            break
    return small


def _middle(image_bgr: Image, aspect: float) -> Image:
    """Return the largest part of this aspect ratio (width to height) in the middle of an image."""
    height, width = image_bgr.shape[:2]
    cut_height, cut_width = min(height, max(1, round(width / aspect))), min(width, max(1, round(height * aspect)))
    top, left = (height - cut_height) // 2, (width - cut_width) // 2
    return image_bgr[top : top + cut_height, left : left + cut_width]


def _png(image_bgr: Image) -> bytes:
    cv2 = import_cv2(purpose="making a self-test")
    _, encoded = cv2.imencode(".png", image_bgr, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return bytes(encoded)


def _frame_from(data: bytes) -> Image:
    """Decode a PNG whose header says that it is small."""
    if not data.startswith(_PNG_START) or len(data) < len(_PNG_START) + 8:
        raise _wrong("its frame is no PNG")
    width, height = struct.unpack_from(">II", data, len(_PNG_START))
    if not (1 <= width <= _LONGEST_SIDE and 1 <= height <= _LONGEST_SIDE):
        raise _wrong(f"its frame has {width}x{height} pixels (width x height), expected at most {_LONGEST_SIDE} a side")
    if claimed_bytes(data):
        raise _wrong("its frame is a damaged PNG")
    cv2 = import_cv2(purpose="running a self-test")
    try:
        frame: Image | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        frame = None
    if frame is None or frame.shape != (height, width, 3):
        raise _wrong("its frame cannot be decoded")
    return frame


def _array_from(text: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """Return the array of this shape and type that a text holds."""
    stored = np.dtype(dtype).newbyteorder("<")
    size = int(np.prod(shape)) * stored.itemsize
    try:
        # One byte more than there should be tells that there are more, without unpacking gigabytes of zeros.
        data = zlib.decompressobj().decompress(_bytes(text, "answer"), size + 1)
    except zlib.error as error:
        raise _wrong(f"its answer cannot be unpacked ({error})") from error
    if len(data) != size:
        found = "more" if len(data) > size else str(len(data))
        raise _wrong(f"its answer has {found} bytes, expected {size} for an array of {'x'.join(map(str, shape))}")
    return np.frombuffer(data, stored).astype(dtype).reshape(shape)


def _stored_type(answer: NDArray[Any]) -> NDArray[Any]:
    return answer.astype(answer.dtype.newbyteorder("<"))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise _wrong(f"its {name} is not base64 ({error})") from error


def _sha256(*texts: str) -> str:
    # JSON can hold halves of surrogate pairs, which no encoding takes as they are.
    return hashlib.sha256(" ".join(texts).encode("utf-8", "replace")).hexdigest()


def _wrong(detail: str) -> ContractError:
    return ContractError(f"the self-test in the contract is damaged: {detail}; export the model again")
