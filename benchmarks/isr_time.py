"""Does the measured time fall with EDAFormer's multiply-adds? Random weights, ONNX Runtime, factors in turn.

    python -m benchmarks.isr_time --sizes 1024x512

Weights do not matter to the time, so none are needed. Writes JSON into benchmarks/results, prints the
table of docs/results.md.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import torch

from benchmarks.machine import RESULTS, store
from sfpp.export.catalog import isr_from_text
from sfpp.export.costs import multiply_adds
from sfpp.export.models.edaformer import EdaDecoderConfig, EdaFormer, EdaFormerConfig, EftConfig
from sfpp.export.settings import resolution_from
from sfpp.export.to_onnx import graph_from_model
from sfpp.runtime.backends import OnnxRuntimeBackend
from sfpp.runtime.contract import InputSpec, ModelContract, OutputSpec

FACTORS = ("1111-111", "1111-222", "2211-222", "2222-222")
EDAFORMER_T = EdaFormerConfig(
    EftConfig((32, 64, 128, 256), (2, 2, 10, 2), (121, 243, 486, 972)), EdaDecoderConfig((128, 256, 512), 128, 19)
)


@dataclass(frozen=True)
class IsrTime:
    """One graph: its factors, its arithmetic, and the median time of a run."""

    size: str
    isr: str
    multiply_adds: int
    latency_ms: float


def measure(size: str, *, runs: int, folder: Path) -> list[IsrTime]:
    """Make a graph for each set of factors and run them in turn; the first round is for warming up."""
    resolution = resolution_from(size)
    torch.manual_seed(0)
    model = EdaFormer(EDAFORMER_T).eval()
    contract = ModelContract(
        task="segmentation",
        family="edaformer",
        size="t",
        variant="isr",
        input=InputSpec("frame", resolution.height, resolution.width),
        outputs=(OutputSpec("logits", "logits", 8),),
        classes=tuple(f"class {index}" for index in range(19)),
        palette=((0, 0, 0),) * 19,
    )
    frame = np.random.default_rng(0).integers(0, 256, contract.input.shape, np.uint8)
    backends, counts = {}, {}
    for isr in FACTORS:
        graph = graph_from_model(model, isr_from_text(isr), contract, frame)
        onnx.save(graph, str(folder / f"{isr}.onnx"))
        counts[isr] = multiply_adds(graph).total()
        backends[isr] = OnnxRuntimeBackend(folder / f"{isr}.onnx")
    times: dict[str, list[float]] = {isr: [] for isr in FACTORS}
    for turn in range(runs + 1):
        for isr, backend in backends.items():
            start = time.perf_counter()
            backend.run({"frame": frame})
            if turn:
                times[isr].append((time.perf_counter() - start) * 1e3)
    return [IsrTime(size, isr, counts[isr], statistics.median(times[isr])) for isr in FACTORS]


def markdown_table(results: Sequence[IsrTime]) -> str:
    """Return the table of docs/results.md: multiply-adds, and the time relative to the first factors'."""
    lines = [f"| EDAFormer-T | {' | '.join(FACTORS)} |", "|---" * (len(FACTORS) + 1) + "|"]
    for size in dict.fromkeys(each.size for each in results):
        row = [each for each in results if each.size == size]
        cells = (f"{each.multiply_adds / 1e9:.1f} G, {each.latency_ms / row[0].latency_ms:.2f}" for each in row)
        lines.append(f"| {size} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the measurement and keep its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["1024x512"], metavar="WxH")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="runs of each (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "isr_time.json")
    arguments = parser.parse_args()
    results: list[IsrTime] = []
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            results += measure(size, runs=arguments.runs, folder=Path(folder))
    store(arguments.output, runs=arguments.runs, results=[asdict(each) for each in results])
    print(markdown_table(results))


if __name__ == "__main__":
    main()
