"""The self-test that an exported file carries: what it answers for a small version of the export's picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sfpp.export.parity.exported import LABEL_AGREEMENT, ParityReport
from sfpp.runtime.contract import ModelContract, SelfTest
from sfpp.runtime.images import Image, batch_from_frames
from sfpp.runtime.model_file import load
from sfpp.runtime.self_test import self_test_for, threshold_for
from sfpp.runtime.self_test_data import unpacked

# Mean error, in parts of the largest logit, from which on float32's own rounding moves a network's answers. Where near
# ties were met, the trained demonstration network has 2.4e-5 at most, and networks of random weights, whose labels are
# noise, 2e-5 to 2.5e-2: of their labels two sound libraries were seen to share as little as 82 %.
_RESTLESS = 1e-4
# Which ties another library settles otherwise is chance: so many times what PyTorch settles otherwise is allowed.
_CHANCE = 3


def stored_self_test(
    path: Path,
    contract: ModelContract,
    picture_bgr: Image,
    parity: ParityReport,
    *,
    compare: Callable[[NDArray[Any]], ParityReport],
) -> SelfTest:
    """Return the self-test of an exported file that agrees with PyTorch.

    Args:
        path: the file.
        contract: what it takes and gives.
        picture_bgr: (H, W, 3) uint8, of which a small version is stored.
        parity: how the file agrees with PyTorch on this picture.
        compare: compares it with PyTorch on another input, of the contract's shape and type. It is asked only if
            ``parity`` shows that rounding moves the answers: then the threshold allows for as much.
    """
    with load(path, contract=contract, backend="onnxruntime", precision="fp32", self_test=False) as model:
        test = self_test_for(model, picture_bgr, threshold_for(contract))
    if not _is_restless(parity):
        return test
    frame_bgr, _ = unpacked(test, contract)
    frames, _ = batch_from_frames([frame_bgr], contract.input)
    moved = 1 - compare(frames).label_agreement
    return dataclasses.replace(test, threshold=threshold_for(contract, 1 - _CHANCE * moved))


def _is_restless(parity: ParityReport) -> bool:
    """Tell whether near ties, settled by rounding, change so much that another library may answer otherwise."""
    if parity.pinned is None:
        return False
    moved = (parity.mean_error or 0.0) > _RESTLESS * (parity.largest_logit or 1.0)
    return moved or parity.label_agreement < LABEL_AGREEMENT
