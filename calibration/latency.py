"""How fast the files are, on the backends of this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sfpp.calibration.judging.examination import JUDGE, Examiner
from sfpp.calibration.results import Latency
from sfpp.runtime.backends import open_backend
from sfpp.runtime.bench import bench
from sfpp.runtime.bench.peak import CHAINS
from sfpp.runtime.bench.row import Row
from sfpp.runtime.bench.settings import BackendSpec
from sfpp.runtime.bench.statistics import speedup
from sfpp.runtime.errors import BackendError, SfppError

_RUNS = 15
# How much further from FP32 a backend's answers may be than ONNX Runtime's of the same file, and than its own usual.
_TOLERATED = 0.02
# A backend that gives less than this of the float32 file's own answers is not in a lower precision, but wrong.
_LEAST = 0.8
_SECONDS = 45.0  # at 3840x2160 a round of three files on three backends takes half a minute


def default_backends(target: str) -> tuple[BackendSpec, ...]:
    """Return what can be timed here: the CPU backends that are installed and run files of this target."""
    specs = [BackendSpec("onnxruntime")]
    if target != "onnxruntime" and importlib.util.find_spec("openvino") is not None:
        # As it computes by itself (in bfloat16 where that is native) and in float32: the fairest rivals of INT8.
        specs += [BackendSpec("openvino", "fp32"), BackendSpec("openvino")]
    return tuple(specs)


def check_backends(backends: Sequence[BackendSpec]) -> None:
    """Refuse backends of which not one can be had here, before minutes are spent on files that none could time.

    Raises:
        BackendError: none of them opens even a small file.
    """
    reasons = [_unavailable(each) for each in backends]
    if reasons and all(reasons):
        raise BackendError(
            f"nothing can be timed on {'; '.join(reasons)}; name other backends, or leave timing off (--no-latency)"
        )


def _unavailable(backend: BackendSpec) -> str:
    """Return why a backend cannot be had here; empty if it can."""
    try:
        open_backend(CHAINS[0].path, backend=backend.name, options=backend.options(cache=False))[0].close()
    except SfppError as error:
        return f"{backend}: {error}"
    return ""


def latencies(
    files: Sequence[Path], backends: Sequence[BackendSpec], *, notify: Callable[[str], object]
) -> tuple[Mapping[Path, tuple[Latency, ...]], Mapping[str, object]]:
    """Time the network of each file on each backend, all in turn.

    Args:
        files: the float32 one first.
        backends: where to run them.
        notify: told what is being done.

    Returns:
        The latencies by file, one a backend; and the machine.

    Raises:
        BackendError: not one of them runs.
    """
    report = bench(files, backends=backends, runs=_RUNS, seconds=_SECONDS, peak=False, memory=False, notify=notify)
    first = {row.backend: row for row in report.rows if row.model == report.rows[0].model}
    found: dict[Path, tuple[Latency, ...]] = {}
    for file in files:
        rows = [row for row in report.rows if Path(row.model) == file]
        found[file] = tuple(_latency(row, first[row.backend]) for row in rows)
    return found, report.machine


def checked(
    timed: Mapping[Path, tuple[Latency, ...]], backends: Sequence[BackendSpec], examiner: Examiner, *, frames: int
) -> Mapping[Path, tuple[Latency, ...]]:
    """Return the latencies with those taken out that belong to wrong answers: a fast wrong answer is none.

    Backends have faults: OpenVINO 2026.4 in float32 computes some INT8 convolutions wrong on CPUs with AMX. What fails
    the file's self-test was not timed at all, as in `sfpp-bench`; many frames, as here, show smaller faults too.

    Args:
        timed: by file, one a backend.
        backends: in the same order.
        examiner: asks the files.
        frames: how many of its frames to ask about.
    """
    # What the backend's own precision does to the float32 file, which comes first: bfloat16 moves some keypoints.
    usual: dict[str, float] = {}
    found = {}
    for path, latencies in timed.items():
        expected = examiner.examine(path, first=frames).accuracy.agreement
        rows = []
        for each, backend in zip(latencies, backends, strict=True):
            if each.p50_ms is None:
                rows.append(each)
                continue
            seen = expected  # by what the file was judged with
            if backend != JUDGE:
                seen = examiner.examine(path, first=frames, backend=backend).accuracy.agreement
            least = min(expected, usual.setdefault(each.backend, max(seen, _LEAST))) - _TOLERATED
            rows.append(each if seen >= least else _wrong(each, seen, expected))
        found[path] = tuple(rows)
    return found


def _wrong(latency: Latency, seen: float, expected: float) -> Latency:
    failure = f"answers wrongly: {seen:.1%} as FP32, but {expected:.1%} in ONNX Runtime"
    return Latency(latency.backend, None, None, failure=failure)


def _latency(row: Row, reference: Row) -> Latency:
    name = row.backend if ":" in row.backend or row.precision in (None, "fp32") else f"{row.backend}:{row.precision}"
    if row.network is None:
        wrong = row.self_test.detail if row.self_test.outcome == "failed" else ""
        return Latency(name, None, None, failure=wrong or row.failure or "not measured")
    ratio = None
    if len(reference.samples) == len(row.samples):  # of the same rounds
        own, other = ([each.infer_ms for each in samples] for samples in (row.samples, reference.samples))
        ratio = speedup(other, own).median
    return Latency(name, row.network.p50_ms, ratio)
