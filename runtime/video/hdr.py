"""High dynamic range as an ordinary screen shows it, which is what networks were trained on.

PQ (SMPTE ST 2084) codes light of up to 10 000 cd/m2 and HLG (ARIB STD-B67) the scene's own; taken for ordinary video,
both are pale and grey. The light of diffuse white, 203 cd/m2 (ITU-R BT.2408), becomes white here; what is darker keeps
its place, and brighter highlights are compressed into the last quarter below white.
"""

from __future__ import annotations

import functools
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.imports import import_cv2

PQ: Final = 16  # the numbers of the transfer functions, of H.273
HLG: Final = 18
NAMES: Final = {PQ: "PQ", HLG: "HLG"}
_WHITE_CD_M2 = 203.0
_DISPLAY_CD_M2 = 1000.0  # of a screen for HLG, and the brightest that is told apart
_HLG_GAMMA = 1.2  # of a screen of 1000 cd/m2, ITU-R BT.2100
_KNEE = 0.75
_SCREEN_GAMMA = 2.4  # ITU-R BT.1886
# Linear light in the primaries of BT.2020 to those of BT.709, both with white D65 (ITU-R BT.2087).
_BT709_FROM_BT2020 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
_BT2020_LUMA = np.array([[0.2627, 0.6780, 0.0593]], np.float32)


def sdr_from_hdr(rgb: NDArray[np.uint16], transfer: int) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 BGR in BT.709 for (H, W, 3) uint16 RGB in BT.2020, 0..65535.

    Args:
        rgb: the picture as it is coded, in full range.
        transfer: ``PQ`` or ``HLG``.
    """
    cv2 = import_cv2(purpose="showing high dynamic range")
    light = np.take(_light(transfer), rgb)
    if transfer == HLG:
        luma = cv2.transform(light, _BT2020_LUMA)
        # The scene's light as the screen gives it: brighter parts are raised more.
        light *= cv2.pow(luma, _HLG_GAMMA - 1)[..., np.newaxis] * np.float32(_DISPLAY_CD_M2 / _WHITE_CD_M2)
    light = cv2.transform(light, _BT709_FROM_BT2020)
    np.maximum(light, 0, out=light)
    brightest = light.max(axis=2)
    # All three alike, so that a highlight keeps its hue.
    light *= (_compressed(brightest) / np.maximum(brightest, np.float32(1e-6)))[..., np.newaxis]
    shown = cv2.pow(light[..., ::-1], 1 / _SCREEN_GAMMA)
    coded: NDArray[np.uint8] = np.rint(255 * np.clip(shown, 0, 1)).astype(np.uint8)
    return coded


@functools.cache
def _light(transfer: int) -> NDArray[np.float32]:
    """Return the linear light for each code value: of PQ in units of diffuse white, of HLG 0..1 of the scene."""
    code = np.arange(65536) / 65535
    if transfer == PQ:
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        root = code ** (1 / m2)
        return (1e4 / _WHITE_CD_M2 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12).astype(np.float32)


def _compressed(light: NDArray[np.float32]) -> NDArray[np.float32]:
    """Keep light up to the knee, and bend what is above it so that the brightest becomes white."""
    peak = np.float32(_DISPLAY_CD_M2 / _WHITE_CD_M2)
    # (x - knee) / (1 + bend * (x - knee)) begins with slope 1 and is 1 - knee at the peak.
    bend = 1 / (1 - _KNEE) - 1 / (peak - _KNEE)
    above = np.maximum(np.minimum(light, peak) - _KNEE, 0)
    compressed: NDArray[np.float32] = np.minimum(light, _KNEE) + above / (1 + bend * above)
    return compressed
