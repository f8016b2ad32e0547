"""What carrying saves of a file's time, and what it costs: frames a second of whole runs, and processor time."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.pipeline import run_pipeline
from benchmarks.waiting import waiting
from sfpp.runtime import Segmenter
from sfpp.runtime.demo import demo_clip
from sfpp.runtime.imports import import_cv2
from sfpp.runtime.motion.options import Motion, key_every_from
from sfpp.runtime.video import Frame, Pipeline, open_sink, open_source

CASES = ("fast:local@openvino:fp32", "fast:local@openvino:bf16")
SIZES = ("480x360", "960x540", "1920x1080")
COST_CASES = ("fast:local@openvino:bf16",)
COST_SIZES = (*SIZES, "3840x2160")
KEYS = (1, 4)


@dataclass(frozen=True)
class Speed:
    """Frames a second of whole runs over a clip, in rounds in which both take turns.

    Attributes:
        case: of the network.
        res: its input, and the clip.
        written: an MP4 with the labels over it is written; else labels alone are made.
        every_frame: with the network on every frame.
        key_frames: with the network on every 4th one, and labels carried both ways.
    """

    case: str
    res: str
    written: bool
    every_frame: tuple[float, ...]
    key_frames: tuple[float, ...]


@dataclass(frozen=True)
class Cost:
    """Processor time of a frame, in milliseconds: of the network, labels as always, and what carrying adds to them.

    ``ahead`` is for files, where the motion is followed both ways.
    """

    case: str
    res: str
    network_ms: float
    labels_ms: float
    carried_ms: float
    carried_ahead_ms: float


def measure(case: str, res: str, model: Segmenter, *, frames: int, rounds: int) -> list[Speed]:
    """Let both ways take turns, with an MP4 written and without; the first round is for warming up."""
    with tempfile.TemporaryDirectory() as folder:
        clip, target = Path(folder) / "clip.mp4", Path(folder) / "overlay.mp4"
        with open_sink(clip) as sink:
            for frame in clip_frames(res, frames):
                sink.write(frame, frame.image_bgr)
        found: dict[bool, list[list[float]]] = {False: [], True: []}
        for _ in tqdm(range(rounds + 1), desc=f"{case}, {res}", unit="round", disable=None):
            for written, times in found.items():
                into = target if written else None
                times.append([frames / _seconds(run, model, clip, into, frames, key_every) for key_every in KEYS])
    columns = {written: list(zip(*times[1:], strict=True)) for written, times in found.items()}
    return [Speed(case, res, written, *each) for written, each in columns.items()]


def run(model: Segmenter, clip: Path, target: Path | None, frames: int, key_every: int) -> None:
    """Run the clip as `sfpp-run` does; without a target labels are made and let go."""
    if target is not None:
        run_pipeline(model, clip, target, frames=frames, key_every=key_every)
        return
    with Pipeline(model, [str(clip)], key_every=key_every, max_frames=frames) as pipeline:
        for _ in pipeline:
            pass


def _seconds(work: Callable[..., object], *arguments: Any) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def clip_frames(res: str, frames: int) -> Iterator[Frame]:
    """Yield frames of the demonstration clip at another size."""
    cv2 = import_cv2(purpose="resizing the clip")
    size = tuple(map(int, res.split("x")))
    with open_source(str(demo_clip())) as source:
        for each in islice(source, frames):
            image = cv2.resize(each.image_bgr, size, interpolation=cv2.INTER_AREA)
            yield replace(each, image_bgr=image, source="clip")


def cost(case: str, res: str, model: Segmenter, *, frames: int) -> Cost:
    """Measure the stages one after the other, in this thread, with a network whose answer is known."""
    clip = list(clip_frames(res, frames))
    prepared = model.prepare(clip[0].image_bgr)
    network_ms = statistics.median(_cpu_ms(model.infer, prepared) for _ in range(3))
    known = waiting(model, clip[0].image_bgr, wait_s=0)
    outputs = known.infer(prepared)
    labels_ms = statistics.median(_cpu_ms(known.finish, outputs, prepared) for _ in clip)
    ways = {ahead: _carried_ms(known, clip, ahead) - labels_ms for ahead in (False, True)}
    return Cost(case, res, network_ms, labels_ms, ways[False], ways[True])


def _carried_ms(model: Segmenter, clip: Sequence[Frame], ahead: bool) -> float:
    """Return processor time a frame of following the motion and of labels, on the mean of all key frames and others."""
    watch, prepare, infer, labels = model.steps(
        motion=Motion(key_every_from(KEYS[1])), ahead=[clip[0].source] if ahead else []
    )
    spent_ms, seen = 0.0, 0
    for frame in clip:
        start = time.process_time()
        underway = watch.work((frame,), None)
        spent_ms += 1000 * (time.process_time() - start)
        ready = prepare.work((frame,), underway) or underway
        ready = infer.work((frame,), ready) or ready
        start = time.process_time()
        seen += len(labels.work((frame,), ready))
        spent_ms += 1000 * (time.process_time() - start)
    start = time.process_time()
    seen += len(labels.rest())
    assert seen == len(clip)
    return (spent_ms + 1000 * (time.process_time() - start)) / seen


def _cpu_ms(work: Callable[..., object], *arguments: Any) -> float:
    start = time.process_time()
    work(*arguments)
    return 1000 * (time.process_time() - start)


def speed_table(rows: Sequence[Speed]) -> str:
    """Return frames a second, and how many times as many there are with key frames: the median over rounds."""
    titles = ("graph", "clip and input", "run", "every frame", "1 of 4", "times as fast")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        ratios = [keys / every for keys, every in zip(row.key_frames, row.every_frame, strict=True)]
        both = [f"{statistics.median(each):.1f}" for each in (row.every_frame, row.key_frames)]
        times = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"
        kind = "to an MP4" if row.written else "labels alone"
        lines.append(f"| {' | '.join([_graph(row.case), row.res, kind, *both, times])} |")
    return "\n".join(lines)


def cost_table(rows: Sequence[Cost]) -> str:
    """Return processor time a frame, and carrying's as a share of the network's."""
    titles = ("graph", "size", "network", "labels", "carrying", "of the network", "both ways", "of the network")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        times = [f"{each:.1f} ms" for each in (row.network_ms, row.labels_ms, row.carried_ms, row.carried_ahead_ms)]
        shares = [f"{each / row.network_ms:.1%}" for each in (row.carried_ms, row.carried_ahead_ms)]
        values = [_graph(row.case), row.res, *times[:3], shares[0], times[3], shares[1]]
        lines.append(f"| {' | '.join(values)} |")
    return "\n".join(lines)


def _graph(case: str) -> str:
    variant, _, backend = case.partition("@")
    precision = {"fp32": ", float32", "bf16": ", bfloat16"}.get(backend.partition(":")[2], "")
    return f"`{variant}`{precision}"
