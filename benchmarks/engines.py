"""How long engines take to build with TensorRT-RTX, and how large they are: no card is needed for that.

    python -m benchmarks.engines
    python -m benchmarks.engines --networks b0 --variants fast --devices sm89

Each graph is traced once and built in float32, float16 and INT8 for each device. B0 and the pose network have the
demonstration models' weights, the others random ones; the ranges of INT8 are arbitrary: neither matters to a build.
What an engine computes is not looked at, since that takes a card. Writes JSON into benchmarks/results and prints the
table of docs/results.md.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from tqdm import tqdm

from benchmarks.isr_time import EDAFORMER_T
from benchmarks.machine import RESULTS, store
from benchmarks.speed.models import LOCAL, save_checkpoint
from sfpp.calibration.fp16.fp16_model import fp16_model
from sfpp.calibration.int8.int8_model import int8_model
from sfpp.calibration.int8.quantizable import TENSORRT, quantizable
from sfpp.calibration.int8.ranges import Range
from sfpp.export.checkpoints import Checkpoint, read_checkpoint
from sfpp.export.contracts import contract_for, variant_from
from sfpp.export.demo import demo_checkpoint, demo_pose_checkpoint
from sfpp.export.models.edaformer import EdaFormer
from sfpp.export.settings import ExportSettings
from sfpp.export.to_onnx import graph_from_model, learned_model
from sfpp.runtime.contract import ModelContract
from sfpp.runtime.errors import SfppError
from sfpp.runtime.tensorrt import EngineSettings, build_engine
from sfpp.runtime.tensorrt.library import library_of
from sfpp.tooling.graph import opset_of, read_model, write_model

DEVICES = ("sm86", "sm89", "sm120")
PRECISIONS = ("fp32", "fp16", "int8")
SEGFORMER_VARIANTS = ("original", "hq", "hq:local", "fast", "fast:local")
_RANGE = Range(-8.0, 8.0)


@dataclass(frozen=True)
class Case:
    """A graph: ``b0``, ``b2``, ``b5``, ``edaformer-t`` or ``pose-b0``; a variant; width x height."""

    network: str
    variant: str
    size: str


@dataclass(frozen=True)
class Build:
    """An engine, or why there is none."""

    network: str
    variant: str
    size: str
    precision: str
    device: str
    nodes: int
    onnx_bytes: int
    seconds: float | None = None
    engine_bytes: int | None = None
    failure: str = ""


CASES = (
    *(Case(network, variant, "1920x1080") for network in ("b0", "b2") for variant in SEGFORMER_VARIANTS),
    *(Case("b5", variant, "1920x1080") for variant in ("fast", "fast:local")),
    Case("edaformer-t", "isr", "1920x1080"),
    *(Case("pose-b0", variant, "1920x1080") for variant in ("original", "hq", "fast")),
    Case("pose-b0", "original", "192x256"),
    *(Case("b0", variant, "3840x2160") for variant in ("hq", "hq:local", "fast", "fast:local")),
)


def builds_of(case: Case, devices: Sequence[str], folder: Path) -> Iterator[Build]:
    """Trace a graph and yield its builds."""
    files = files_of(case, folder)
    for precision, path in files.items():
        nodes = len(onnx.load(str(path), load_external_data=False).graph.node)
        for device in devices:
            row = Build(case.network, case.variant, case.size, precision, device, nodes, path.stat().st_size)
            yield _built(row, path)


def _built(row: Build, path: Path) -> Build:
    try:
        report = build_engine(path, backend="tensorrt-rtx", settings=EngineSettings(devices=(row.device,)))
    except SfppError as error:
        return replace(row, failure=str(error))
    report.path.unlink()
    return replace(row, seconds=report.seconds, engine_bytes=report.size_bytes)


def files_of(case: Case, folder: Path) -> dict[str, Path]:
    """Write the graph in each precision and return the files."""
    path = folder / f"{case.network}-{case.variant}-{case.size}.onnx".replace(":", "-")
    graph, contract = _graph(case, folder)
    write_model(graph, contract, path)
    model = read_model(path)
    # What is not INT8 is float16, as `sfpp-calibrate` makes it for TensorRT.
    ranges = {each.activation: _RANGE for each in quantizable(model)}
    lower = {"fp16": fp16_model(model), "int8": fp16_model(int8_model(model, ranges, rest="fp16", form=TENSORRT))}
    files = {"fp32": path}
    for precision, each in lower.items():
        files[precision] = path.with_suffix(f".{precision}.onnx")
        write_model(each, replace(contract, precision=precision, opset=opset_of(each)), files[precision])
    return files


def _graph(case: Case, folder: Path) -> tuple[onnx.ModelProto, ModelContract]:
    """Return the graph for TensorRT and its contract; it is traced, but not compared with PyTorch."""
    checkpoint = _checkpoint(case.network, folder)
    name, local, _ = case.variant.partition(LOCAL)
    settings = ExportSettings(name, matching="local" if local else None, target="tensorrt", res=case.size)
    variant = variant_from(settings, checkpoint)
    contract = contract_for(checkpoint, variant, settings)
    example = np.random.default_rng(0).integers(0, 256, contract.input.shape, dtype=np.uint8)
    return graph_from_model(learned_model(checkpoint), variant.recipe, contract, example), contract


def _checkpoint(network: str, folder: Path) -> Checkpoint:
    """Return the demonstration model's weights, or random ones."""
    if network == "edaformer-t":
        torch.manual_seed(0)
        state = EdaFormer(EDAFORMER_T).state_dict()
        nothing = dict.fromkeys(("classes", "palette", "keypoints"))
        facts = {"family": "edaformer", "task": "segmentation", "style": "edaformer", "size": "t"}
        return Checkpoint("random", config=EDAFORMER_T, state=state, sha256="", licence="", **facts, **nothing)
    known = {"b0": demo_checkpoint, "pose-b0": demo_pose_checkpoint}
    return read_checkpoint(known[network]() if network in known else save_checkpoint(network, folder / network))


def markdown_table(rows: Sequence[Build]) -> str:
    """Return the table of docs/results.md: per graph the median of the devices' seconds, and the largest engine."""
    lines = ["| network | variant | size | FP32 | FP16 | INT8 |", "|---|---|---|---|---|---|"]
    for graph in dict.fromkeys((row.network, row.variant, row.size) for row in rows):
        own = [row for row in rows if (row.network, row.variant, row.size) == graph]
        cells = " | ".join(_cell([row for row in own if row.precision == precision]) for precision in PRECISIONS)
        network, variant, size = graph
        lines.append(f"| {network} | `{variant}` | {size} | {cells} |")
    return "\n".join(lines)


def _cell(builds: Sequence[Build]) -> str:
    if any(row.failure for row in builds):
        return "fails for " + ", ".join(row.device for row in builds if row.failure)
    seconds = statistics.median(row.seconds or 0.0 for row in builds)
    size = max(row.engine_bytes or 0 for row in builds)
    return f"{seconds:.1f} s, {size / 1e6:.0f} MB"


def main() -> None:
    """Build them all and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", help="default: all")
    parser.add_argument("--variants", nargs="+", help="default: all")
    parser.add_argument("--devices", nargs="+", default=list(DEVICES))
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "engines.json")
    arguments = parser.parse_args()
    cases = [
        case
        for case in CASES
        if case.network in (arguments.networks or [case.network])
        and case.variant in (arguments.variants or [case.variant])
    ]
    library = library_of("tensorrt-rtx", purpose="building engines")
    rows: list[Build] = []
    for case in tqdm(cases, unit="graph"):
        with tempfile.TemporaryDirectory() as folder:
            rows += builds_of(case, arguments.devices, Path(folder))
        # After each graph: the whole takes half an hour.
        store(arguments.output, library=library.version, results=[asdict(row) for row in rows])
    print(markdown_table(rows))
    for row in rows:
        if row.failure:
            print(f"{row.network} {row.variant} {row.size} {row.precision} {row.device}: {row.failure}")


if __name__ == "__main__":
    main()
