"""Sources that behave like cameras, and models that take their time."""

import time

import numpy as np

from sfpp.runtime import Segmenter
from sfpp.runtime.backends import FunctionBackend
from sfpp.runtime.errors import MediaError
from sfpp.runtime.video.frame import Decoded, Source
from tests.runtime.video.clips import CONTRACT, picture


def camera(name="camera", *, frames=None, pause_s=0.0, size_hw=(48, 64), fails_after=None, warnings=None):
    """A source whose frames come by the clock; ``size_hw`` may be a function of the index."""

    def decoded():
        index = 0
        while frames is None or index < frames:
            if index == fails_after:
                raise MediaError(f"{name} is broken")
            size = size_hw(index) if callable(size_hw) else size_hw
            yield Decoded(picture(index, size_hw=size), index / 25, f"{name}-{index}")
            index += 1
            time.sleep(pause_s)

    live = frames is None or pause_s > 0
    return Source(decoded(), kind="camera", name=name, frames_per_second=None, live=live, warnings=warnings)


def slow_model(pause_s=0.0, *, batch=1, batches=None):
    """Tells the strongest color, after a while; keeps how many frames it was given at a time."""
    contract = CONTRACT
    if batch > 1:
        import dataclasses

        contract = dataclasses.replace(CONTRACT, input=dataclasses.replace(CONTRACT.input, batch=batch))

    def run(inputs):
        time.sleep(pause_s)
        frame = inputs["frame"].astype(np.float32)
        cells = frame.reshape(batch, 6, 4, 8, 4, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2)
        if batches is not None:
            batches.append(len({each.tobytes() for each in inputs["frame"]}))
        return {"logits": cells}

    return Segmenter(FunctionBackend(run, metadata={}), contract)
