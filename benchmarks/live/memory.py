"""Memory over many frames, with everything that may hold one: decoder, stages, recording, lines of JSON, viewer."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.live.parts import resources
from sfpp.runtime import load_segmenter
from sfpp.runtime.video import Delivery, Pipeline, SinkThread, SourceSinks, open_sink, record_lines
from sfpp.runtime.viewer import Viewer

_FRAMES = 20_000
_EVERY = 500
_SOURCE = "test://?width=320&height=192&pace=0"
_WARM = 1000  # what libraries keep for the next time is there by then


@dataclass(frozen=True)
class Memory:
    """Resident memory in MB every ``every`` frames."""

    frames: int
    every: int
    memory_mb: tuple[float, ...]
    threads: int
    handles: int

    @property
    def growth_mb(self) -> float:
        """Of 10 000 frames, from a line through all but the first values."""
        frames = self.every * np.arange(1, len(self.memory_mb) + 1)
        warm = frames >= _WARM
        return float(1e4 * np.polyfit(frames[warm], np.array(self.memory_mb)[warm], 1)[0])

    def sentence(self) -> str:
        """Return it in words."""
        warm = self.memory_mb[_WARM // self.every - 1 :]
        return (
            f"{self.frames} frames with a recording, lines of JSON and a viewer: {warm[0]:.0f} MB after {_WARM}, "
            f"{warm[-1]:.0f} MB at the end, {min(warm):.0f} to {max(warm):.0f} MB on the way "
            f"({self.growth_mb:+.1f} MB for 10 000 frames)"
        )


def memory(model: Path) -> Memory:
    """Let the frames pass."""
    seen: list[float] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        segmenter = stack.enter_context(load_segmenter(model))
        viewer = stack.enter_context(Viewer(segmenter, port=0))
        pipeline = stack.enter_context(Pipeline(segmenter, [_SOURCE], policy="every-frame"))

        recording = SinkThread(open_sink(folder / "out.mp4", live=True), name="video", policy="every-frame")
        lines = SinkThread(record_lines(folder / "out.jsonl"), name="lines", policy="every-frame")
        sinks = SourceSinks({"encode": stack.enter_context(recording)}, records={"json": stack.enter_context(lines)})
        delivery = Delivery({source.name: sinks for source in pipeline.sources}, viewer=viewer)
        for count, answer in enumerate(tqdm(pipeline, total=_FRAMES, desc="frames", mininterval=1), start=1):
            delivery.take(answer)
            if count % _EVERY == 0:
                held = resources()
                seen.append(held.memory_mb)
            if count == _FRAMES:
                break
    return Memory(_FRAMES, _EVERY, tuple(seen), held.threads, held.handles)
