"""INT8 on every kind of x86 CPU: ours beside NNCF's and ONNX Runtime's own quantizers, on CamVid's test frames.

    python -m benchmarks.int8 --data camvid
    python -m benchmarks.int8 --data camvid --variants fast original --quantizers

Each variant is exported and calibrated on training frames for OpenVINO and for ONNX Runtime. A process for each kind of
CPU that this one can stand for (oneDNN's ISA cap) then runs all files in turn on every test frame, with one thread, and
counts CPU time. ``--quantizers`` adds NNCF (``pip install nncf``) and ONNX Runtime's quantizer, both at their defaults,
fed with the same frames. What was measured on another machine stays in the result. Writes JSON into benchmarks/results
and prints the table of docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.machine import RESULTS, machine, points_text
from sfpp.calibration import calibrate
from sfpp.export import export_onnx
from sfpp.runtime import load_segmenter, read_contract_file, read_image
from sfpp.runtime.agreement import label_agreement
from sfpp.runtime.files import python_module, write_text
from sfpp.runtime.images import batch_from_frames
from sfpp.tooling.metrics import ConfusionMatrix

IGNORE = 11
VARIANTS = ["original", "hq", "fast", "fast:local", "fast+", "2x2"]
FRAMES = 64  # to calibrate with
# What a CPU must have for oneDNN to behave as on one that has no more, the least first.
CAPS = {"AVX2": "avx2", "AVX2_VNNI": "avx_vnni", "AVX512_CORE": "avx512f", "AVX512_CORE_VNNI": "avx512_vnni"}
_FLOAT = {"openvino": "float32 for OpenVINO", "onnxruntime": "float32 for ONNX Runtime"}


@dataclass(frozen=True)
class Candidate:
    """A file, and where it runs."""

    file: str
    path: str
    backend: str
    precision: str


@dataclass(frozen=True)
class Row:
    """What came out.

    Attributes:
        variant: as it was exported.
        file: which one, in words.
        backend: where it ran, as ``openvino:bf16``.
        cap: the kind of CPU that oneDNN took this one for; empty for its own.
        size_bytes: of the file.
        mean_iou: on the test frames, 0..1.
        lost: points (of 100) of mean IoU, compared with float32 in ONNX Runtime.
        agreement: labels as float32's in ONNX Runtime, 0..1.
        cpu_ms: median CPU time of the network.
        to_float32: median ratio of the float32 file's CPU time, in the same library and process, to this one's.
        to_bfloat16: the same for bfloat16; None where there is none.
    """

    variant: str
    file: str
    backend: str
    cap: str
    size_bytes: int
    mean_iou: float
    lost: float
    agreement: float
    cpu_ms: float
    to_float32: float
    to_bfloat16: float | None


def caps_below(instruction_sets: Sequence[str]) -> list[str]:
    """Return the caps that change something here: those below the most that this CPU has."""
    possible = [cap for cap, needed in CAPS.items() if needed in instruction_sets]
    has_more = bool({"avx512_bf16", "amx_int8"} & set(instruction_sets))
    return possible if has_more else possible[:-1]


def written_files(variant: str, *, data: Path, quantizers: bool, folder: Path) -> list[tuple[str, Path, str]]:
    """Export and calibrate a variant; return each file's name, path and library."""
    name, _, matching = variant.partition(":")
    files = []
    for backend, target in (("openvino", "portable"), ("onnxruntime", "onnxruntime")):
        path = folder / f"{name}-{matching or 'exact'}-{target}.onnx"
        _say(f"{variant}: exporting and calibrating for {backend}")
        export_onnx(path=path, variant=name, matching=matching or None, res="480x360", target=target)
        files.append((_FLOAT[backend], path, backend))
        judged = {"validation": data / "val/images", "labels": data / "val/labels"}
        report = calibrate(
            path,
            data / "train/images",
            **judged,
            precision=["int8"],
            frames=FRAMES,
            output=folder,
            latency=False,
            report=False,
        )
        files.append(("INT8", report.files[-1].path, backend))
        if quantizers:
            other = _nncf if backend == "openvino" else _onnxruntime_quantizer
            _say(f"{variant}: {other.__name__.strip('_')}")
            files.append((*other(path, data / "train/images"), backend))
    return files


def _frames(path: Path, images: Path) -> list[dict[str, NDArray[Any]]]:
    """Return the input of the training frames, evenly spread."""
    every = sorted(images.iterdir())
    spec = load_segmenter(path, backend="onnxruntime").contract.input
    chosen = every[:: max(1, len(every) // FRAMES)][:FRAMES]
    return [{spec.name: batch_from_frames([read_image(each)], spec)[0]} for each in chosen]


def _nncf(path: Path, images: Path) -> tuple[str, Path]:
    """Quantize with NNCF at its defaults: 300 frames at most, performance preset."""
    import nncf
    import onnx

    frames = _frames(path, images)
    made = nncf.quantize(onnx.load(path), nncf.Dataset(frames), subset_size=len(frames))
    output = path.with_suffix(".nncf.onnx")
    onnx.save(made, output)
    return "NNCF", output


def _onnxruntime_quantizer(path: Path, images: Path) -> tuple[str, Path]:
    """Quantize with ONNX Runtime at its defaults, after the preparation that it asks for."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            self._frames = iter(_frames(path, images))

        def get_next(self) -> Any:
            return next(self._frames, None)

    prepared, output = path.with_suffix(".prepared.onnx"), path.with_suffix(".ort.onnx")
    quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
    quantize_static(str(prepared), str(output), Reader())
    return "ONNX Runtime's quantizer", output


def candidates(files: Sequence[tuple[str, Path, str]], *, capped: bool, bfloat16: bool) -> Iterator[Candidate]:
    """Yield what runs in one process: under a cap OpenVINO in float32, else all; float32 in ONNX Runtime always first.

    A capped CPU with bfloat16 does not compile it: the plugin asks the CPU, oneDNN the cap.
    """
    reference = next(each for each in files if each[0] == _FLOAT["onnxruntime"])
    yield Candidate(reference[0], str(reference[1]), "onnxruntime", "fp32")
    for name, path, backend in files:
        if backend == "openvino":
            for precision in ("fp32", "bf16") if bfloat16 and not capped else ("fp32",):
                yield Candidate(name, str(path), backend, precision)
        elif not capped and name != reference[0]:
            yield Candidate(name, str(path), backend, "fp32")


def run(chosen: Sequence[Candidate], contract: str, data: Path, every: int) -> list[dict[str, Any]]:
    """Run all candidates in turn on each test frame; return what each gave, in their order."""
    models = [_opened(each, contract) for each in chosen]
    classes = len(models[0].contract.classes)
    seen = [ConfusionMatrix(classes, ignore=IGNORE) for _ in models]
    agreements: list[list[float]] = [[] for _ in models]
    times: list[list[float]] = [[] for _ in models]
    images = sorted((data / "test/images").iterdir())[::every]
    for image in tqdm(images, unit="frame", disable=None):
        frame_bgr, truth = read_image(image), read_image(data / "test/labels" / f"{image.stem}.png")[..., 0]
        answers = []
        for model, spent in zip(models, times, strict=True):
            prepared = model.prepare(frame_bgr)
            start = time.process_time()
            outputs = model.infer(prepared)
            spent.append(time.process_time() - start)
            answers.append(model.finish(outputs, prepared).labels)
        for labels, confusion, agreed in zip(answers, seen, agreements, strict=True):
            confusion.update(labels, truth)
            agreed.append(label_agreement(labels, answers[0]))
    return [
        {"mean_iou": float(confusion.mean_iou()), "agreement": statistics.fmean(agreed), "times": spent}
        for confusion, agreed, spent in zip(seen, agreements, times, strict=True)
    ]


def _opened(candidate: Candidate, contract: str) -> Any:
    # Other quantizers do not keep the contract.
    given = read_contract_file(contract) if candidate.file not in ("INT8", *_FLOAT.values()) else None
    return load_segmenter(
        candidate.path,
        contract=given,
        backend=candidate.backend,
        precision=candidate.precision,
        threads=1,
        self_test=False,  # how much is wrong is what is measured
    )


def rows(variant: str, cap: str, chosen: Sequence[Candidate], found: Sequence[dict[str, Any]]) -> list[Row]:
    """Return the rows of one process."""

    def ratio(index: int, precision: str) -> float | None:
        backend = chosen[index].backend
        for other, each in enumerate(chosen):
            if (each.file, each.precision) == (_FLOAT[backend], precision):
                pairs = zip(found[other]["times"], found[index]["times"], strict=True)
                return statistics.median(theirs / own for theirs, own in pairs)
        return None

    return [
        Row(
            variant=variant,
            file=each.file,
            backend=f"{each.backend}:{each.precision}" if each.backend == "openvino" else each.backend,
            cap=cap,
            size_bytes=Path(each.path).stat().st_size,
            mean_iou=seen["mean_iou"],
            lost=100 * (found[0]["mean_iou"] - seen["mean_iou"]),
            agreement=seen["agreement"],
            cpu_ms=1000 * statistics.median(seen["times"]),
            to_float32=ratio(index, "fp32") or 1.0,
            to_bfloat16=ratio(index, "bf16"),
        )
        for index, (each, seen) in enumerate(zip(chosen, found, strict=True))
        if index or not cap  # under a cap ONNX Runtime is there to compare with alone
    ]


def measured(variant: str, *, data: Path, quantizers: bool, every: int, on_rows: Callable[[list[Row]], None]) -> None:
    """Measure one variant on every kind of CPU that this one can stand for."""
    sets = machine()["instruction_sets"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = written_files(variant, data=data, quantizers=quantizers, folder=folder)
        contract = folder / "contract.json"
        write_text(contract, load_segmenter(files[0][1], backend="onnxruntime").contract.to_json())
        for cap in ["", *caps_below(sets)]:
            _say(f"{variant}: running on {cap or 'this CPU'}")
            chosen = list(candidates(files, capped=bool(cap), bfloat16="avx512_bf16" in sets))
            on_rows(rows(variant, cap, chosen, _in_a_process(chosen, contract, data, every, cap, folder)))


def _in_a_process(
    chosen: Sequence[Candidate], contract: Path, data: Path, every: int, cap: str, folder: Path
) -> list[dict[str, Any]]:
    """Run in a process of its own, since oneDNN reads its cap once."""
    task, answer = folder / "task.json", folder / "answer.json"
    given = {"chosen": [asdict(each) for each in chosen], "contract": str(contract), "data": str(data), "every": every}
    write_text(task, json.dumps(given))
    environment = {**os.environ, **({"ONEDNN_MAX_CPU_ISA": cap} if cap else {}), "SFPP_CACHE": str(folder / "cache")}
    subprocess.run(
        **python_module("benchmarks.int8", "--task", str(task), "-o", str(answer)), check=True, env=environment
    )
    return list(json.loads(answer.read_text(encoding="utf-8")))


def _say(line: str) -> None:
    print(f"benchmarks.int8: {line}", file=sys.stderr, flush=True)


def markdown_table(results: Sequence[dict[str, Any]]) -> str:
    """Return one machine's table of docs/results.md."""
    lines = [
        "| variant | file | library | CPU | mIoU | lost | labels as float32 | CPU time | to bfloat16 | size |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in (Row(**each) for each in results):
        bfloat16 = "" if row.to_bfloat16 is None else f"{row.to_bfloat16:.2f}x"
        lines.append(
            f"| `{row.variant}` | {row.file} | {row.backend} | {row.cap or 'own'} | {row.mean_iou:.2%} | "
            f"{points_text(row.lost)} | {row.agreement:.2%} | {row.to_float32:.2f}x | {bfloat16} | "
            f"{row.size_bytes / 1e6:.1f} MB |"
        )
    return "\n".join(lines)


def kept(output: Path, found: Sequence[Row]) -> list[dict[str, Any]]:
    """Write what was found beside what other kinds of CPU have; return this one's rows, older ones of others too."""
    own = machine()
    stored = json.loads(output.read_text(encoding="utf-8")) if output.is_file() else []
    others = [each for each in stored if each["machine"]["instruction_sets"] != own["instruction_sets"]]
    before = [each for each in stored if each not in others]
    fresh = {(row.variant, row.cap) for row in found}
    old = [row for each in before for row in each["results"] if (row["variant"], row["cap"]) not in fresh]
    results = [*old, *map(asdict, found)]
    write_text(output, json.dumps([*others, {"machine": own, "results": results}], indent=1))
    return results


def main() -> None:
    """Run the measurement and keep its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="CamVid's folder")
    parser.add_argument("--variants", nargs="+", default=VARIANTS)
    parser.add_argument("--quantizers", action="store_true", help="add NNCF and ONNX Runtime's quantizer")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every Nth test frame (default: all)")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "int8.json")
    parser.add_argument("--task", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        task = json.loads(arguments.task.read_text(encoding="utf-8"))
        chosen = [Candidate(**each) for each in task["chosen"]]
        write_text(arguments.output, json.dumps(run(chosen, task["contract"], Path(task["data"]), task["every"])))
        return
    if arguments.data is None:
        parser.error("--data is missing: give CamVid's folder")
    found: list[Row] = []
    results: list[dict[str, Any]] = []

    def on_rows(some: list[Row]) -> None:
        found.extend(some)
        results[:] = kept(arguments.output, found)

    for variant in arguments.variants:
        measured(variant, data=arguments.data, quantizers=arguments.quantizers, every=arguments.every, on_rows=on_rows)
    print(markdown_table(results))


if __name__ == "__main__":
    main()
