"""A network that takes its time and none of the cores, as on a GPU."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime import Segmenter
from sfpp.runtime.backends.protocol import Arrays, FunctionBackend


def waiting(model: Segmenter, frame_bgr: NDArray[np.uint8], *, wait_s: float) -> Segmenter:
    """Return the model with its network replaced by a wait: the answer is the one for this frame, whatever comes."""
    outputs = model.infer(model.prepare(frame_bgr))

    def wait(inputs: Arrays) -> dict[str, NDArray[Any]]:
        time.sleep(wait_s)
        return dict(outputs)

    return Segmenter(FunctionBackend(wait, metadata={}), model.contract)


def blank_frame(model: Segmenter) -> NDArray[np.uint8]:
    """Return a black frame of the model's size."""
    return np.zeros((*model.contract.input.size_hw, 3), np.uint8)
