"""How the network's time grows with the frame, variant by variant, on ONNX Runtime.

    python -m benchmarks.network_time --sizes 512x512 1920x1080

Every variant sees the same street scene, brought to the size; at each size the variants take turns, and medians are
compared with that of `original`. Writes JSON into benchmarks/results and prints the table of the README.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.machine import RESULTS, store
from sfpp.export import export_onnx
from sfpp.export.catalog import VARIANTS
from sfpp.export.demo import demo_frame
from sfpp.runtime import load, read_image
from sfpp.runtime.agreement import label_agreement


@dataclass(frozen=True)
class NetworkTime:
    """Median time of one run of the network, and how many labels at the frame's size are those of `original`."""

    variant: str
    size: str
    latency_ms: float
    agreement_with_original: float


def measure(size: str, *, variants: Sequence[str], runs: int, folder: Path) -> list[NetworkTime]:
    """Export the variants at one size and run them in turn; the first round is for warming up."""
    frame = read_image(demo_frame())
    paths = {
        variant: export_onnx(path=folder / f"{variant}.onnx", variant=variant, res=size, resize="stretch").path
        for variant in variants
    }
    models = {variant: load(path, backend="onnxruntime") for variant, path in paths.items()}
    prepared = next(iter(models.values())).prepare(frame)
    labels = {variant: model(frame).labels for variant, model in models.items()}
    times: dict[str, list[float]] = {variant: [] for variant in variants}
    for _ in range(runs):
        for variant, model in models.items():
            start = time.perf_counter()
            model.infer(prepared)
            times[variant].append((time.perf_counter() - start) * 1e3)
    first = labels[variants[0]]
    return [
        NetworkTime(variant, size, statistics.median(times[variant]), label_agreement(first, labels[variant]))
        for variant in variants
    ]


def markdown_table(results: Sequence[NetworkTime], variants: Sequence[str]) -> str:
    """Return the README's table: a row a size, a column a variant."""
    lines = [f"| width x height | {' | '.join(f'`{each}`' for each in variants)} |", "|---" * (len(variants) + 1) + "|"]
    for size in dict.fromkeys(each.size for each in results):
        row = [each for each in results if each.size == size]
        cells = [f"{row[0].latency_ms:.0f} ms"]
        cells += [f"{row[0].latency_ms / each.latency_ms:.2f}x, {each.agreement_with_original:.1%}" for each in row[1:]]
        lines.append(f"| {size} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the measurement and keep its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["512x512", "1024x1024", "1920x1080", "3840x2160"], metavar="WxH")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), help="default: all named ones")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="runs of each (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "network_time.json")
    arguments = parser.parse_args()
    results: list[NetworkTime] = []
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            results += measure(size, variants=arguments.variants, runs=arguments.runs, folder=Path(folder))
        print(markdown_table(results, arguments.variants).splitlines()[-1], flush=True)
    store(arguments.output, runs=arguments.runs, results=[asdict(each) for each in results])
    print(markdown_table(results, arguments.variants))


if __name__ == "__main__":
    main()
