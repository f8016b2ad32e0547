"""What the threaded pipeline brings: each stage alone, all of them at once, and one after the other as before.

    python -m benchmarks.pipeline                                   # the demonstration model at 960x540, and its clip
    python -m benchmarks.pipeline MODEL.onnx VIDEO --frames 24
    python -m benchmarks.pipeline --wait-ms 30                      # a network that waits 30 ms, as a GPU's would

The three take turns within each round, and medians over the rounds are compared. A stage alone passes over all frames
before the next stage begins. Its processor time says what it takes from the others when they share the cores, and the
sum of those times gives a second bound, beside the slowest stage, that no pipeline on this machine can pass. Writes
JSON into benchmarks/results and prints a table.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.machine import RESULTS, store
from benchmarks.waiting import waiting
from sfpp.export import export_onnx
from sfpp.runtime import Segmenter
from sfpp.runtime.demo import demo_clip
from sfpp.runtime.model_file import load_segmenter
from sfpp.runtime.resources import usable_cores
from sfpp.runtime.video import Delivery, Pipeline, Sink, open_sink, open_source
from sfpp.runtime.video.outputs import Outputs, Plan, Sinks

Value = TypeVar("Value")
# What one stage made of all frames, the next one takes.
Stages = Mapping[str, Callable[[Any], Any]]


@dataclass(frozen=True)
class StageAlone:
    """A stage that has the machine to itself: wall and processor time a frame."""

    stage: str
    latency_ms: float
    cpu_ms: float

    @property
    def frames_per_second(self) -> float:
        """What it would allow."""
        return 1000 / self.latency_ms


@dataclass(frozen=True)
class Throughput:
    """One round: the stages alone, and the frames a second of both ways to run them all."""

    alone: tuple[StageAlone, ...]
    pipeline: float
    sequential: float


def measure(model: Segmenter, video: Path, *, frames: int, rounds: int, folder: Path) -> list[Throughput]:
    """Let the three ways take turns; the first round is for warming up."""
    target = folder / "overlay.mp4"

    def one_round() -> Throughput:
        return Throughput(
            alone=stages_alone(model, video, target, frames=frames),
            pipeline=frames / _seconds(lambda: run_pipeline(model, video, target, frames=frames)),
            sequential=frames / _seconds(lambda: run_sequentially(model, video, target, frames=frames)),
        )

    return [one_round() for _ in range(rounds + 1)][1:]


def stages_alone(model: Segmenter, video: Path, target: Path, *, frames: int) -> tuple[StageAlone, ...]:
    """Pass each stage over all frames before the next one begins."""
    alone = []
    with ExitStack() as stack:
        source = stack.enter_context(open_source(str(video)))
        decoded = iter(source)
        items: list[Any] = [None] * frames
        stages: Stages = {"decode": lambda _: (next(decoded),), **model_stages(model)}
        for stage, work in stages.items():
            items, result = _pass_over(items, stage, work)
            alone.append(result)
    return (*alone, _encode_alone(items, target))


def model_stages(model: Segmenter) -> Stages:
    """What is done between decoding and encoding; an item is a frame and what was made of it so far."""
    return {
        "prepare": lambda item: (*item, model.prepare(item[0].image_bgr)),
        "infer": lambda item: (*item, model.infer(item[1])),
        "labels": lambda item: (item[0], model.finish(item[2], item[1])),
        "draw": lambda item: (item[0], item[1].draw(item[0].image_bgr)),
    }


def run_pipeline(model: Segmenter, video: Path, target: Path, *, frames: int, key_every: int = 1) -> None:
    """As `sfpp-run` does it."""
    with open_source(str(video)) as source:
        plan = Plan({source.name: Outputs((str(target),))}, max_frames=frames)
        with (
            Pipeline(model, [source], key_every=key_every, max_frames=frames) as pipeline,
            Sinks(plan, [source]) as sinks,
            sinks.of(source) as opened,
        ):
            delivery = Delivery({source.name: opened}, timer=pipeline.timer)
            for answer in pipeline:
                delivery.take(answer)


def run_sequentially(model: Segmenter, video: Path, target: Path, *, frames: int) -> None:
    """Each frame through all stages before the next one is decoded."""
    stages = model_stages(model).values()
    with open_source(str(video)) as source, open_sink(target) as sink:
        for frame in itertools.islice(source, frames):
            item: Any = (frame,)
            for work in stages:
                item = work(item)
            sink.write(*item)


def summary(rounds: Sequence[Throughput], *, cores: int) -> dict[str, float | str]:
    """Return medians over the rounds, and the two bounds."""
    slowest = max(_median_stages(rounds), key=lambda each: each.latency_ms)
    cpu_ms = sum(each.cpu_ms for each in _median_stages(rounds))
    pipeline = statistics.median(each.pipeline for each in rounds)
    shares = [each.pipeline / min(stage.frames_per_second for stage in each.alone) for each in rounds]
    return {
        "pipeline": pipeline,
        "sequential": statistics.median(each.sequential for each in rounds),
        "slowest": slowest.stage,
        "slowest_alone": slowest.frames_per_second,
        "share_of_slowest": statistics.median(shares),
        "cores_allow": 1000 * cores / cpu_ms,
    }


def markdown_table(rounds: Sequence[Throughput], *, cores: int) -> str:
    """Return the stages alone, and beneath them both ways and both bounds."""
    lines = ["| stage alone | time | processor time | frames per second |", "|---|---|---|---|"]
    lines += [
        f"| {each.stage} | {each.latency_ms:.1f} ms | {each.cpu_ms:.1f} ms | {each.frames_per_second:.1f} |"
        for each in _median_stages(rounds)
    ]
    facts = summary(rounds, cores=cores)
    lines += ["", "| | frames per second |", "|---|---|"]
    lines.append(f"| one after the other | {facts['sequential']:.1f} |")
    lines.append(f"| pipeline | {facts['pipeline']:.1f} |")
    lines.append(f"| the slowest stage, {facts['slowest']}, alone | {facts['slowest_alone']:.1f} |")
    lines.append(f"| all stages' processor time on {cores} cores | {facts['cores_allow']:.1f} |")
    return "\n".join([*lines, "", f"The pipeline reaches {facts['share_of_slowest']:.0%} of the slowest stage alone."])


def _median_stages(rounds: Sequence[Throughput]) -> Iterator[StageAlone]:
    for passes in zip(*(each.alone for each in rounds), strict=True):
        latency_ms = statistics.median(each.latency_ms for each in passes)
        yield StageAlone(passes[0].stage, latency_ms, statistics.median(each.cpu_ms for each in passes))


def _pass_over(items: list[Any], stage: str, work: Callable[[Any], Any]) -> tuple[list[Any], StageAlone]:
    start, cpu_start = time.perf_counter(), time.process_time()
    made = [work(item) for item in items]
    return made, _alone(stage, start, cpu_start, len(items))


def _encode_alone(items: Sequence[Any], target: Path) -> StageAlone:
    """The encoder works ahead in threads of its own, so its time ends with the finished file."""
    start, cpu_start = time.perf_counter(), time.process_time()
    with open_sink(target) as sink:
        _write_all(sink, items)
    return _alone("encode", start, cpu_start, len(items))


def _write_all(sink: Sink, items: Sequence[Any]) -> None:
    for frame, picture_bgr in items:
        sink.write(frame, picture_bgr)


def _alone(stage: str, start: float, cpu_start: float, frames: int) -> StageAlone:
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    return StageAlone(stage, 1000 * wall / frames, 1000 * cpu / frames)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, help="default: the demonstration model, fast, at 960x540")
    parser.add_argument("video", nargs="?", type=Path, default=demo_clip(), help="default: the demonstration clip")
    parser.add_argument("--frames", type=int, default=60, metavar="N", help="of the video (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="counted rounds (default: %(default)s)")
    parser.add_argument("--wait-ms", type=float, metavar="MS", help="replace the network by a wait of this length")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "pipeline.json")
    return parser.parse_args()


def main() -> None:
    """Run the measurement and keep its result."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        path = arguments.model or export_onnx(path=folder / "fast.onnx", variant="fast", res="960x540").path
        model = stack.enter_context(load_segmenter(path))
        description = model.description
        if arguments.wait_ms is not None:
            with open_source(str(arguments.video)) as source:
                model = waiting(model, next(iter(source)).image_bgr, wait_s=arguments.wait_ms / 1000)
        rounds = measure(model, arguments.video, frames=arguments.frames, rounds=arguments.rounds, folder=folder)
    cores = usable_cores()
    settings = {"model": description, "video": arguments.video.name, "frames": arguments.frames}
    results = [asdict(each) for each in rounds]
    store(arguments.output, **settings, wait_ms=arguments.wait_ms, summary=summary(rounds, cores=cores), rounds=results)
    print(markdown_table(rounds, cores=cores))


if __name__ == "__main__":
    main()
