"""How fast the files are, on the backends of this machine."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sfpp.calibration.evaluate import REFERENCE_BACKEND, Evaluator
from sfpp.calibration.results import Latency
from sfpp.runtime.backends import open_backend
from sfpp.runtime.bench.peak import CHAINS
from sfpp.runtime.bench.rounds import Campaign
from sfpp.runtime.bench.row import Row, speedup
from sfpp.runtime.bench.settings import BackendSpec, BenchSettings
from sfpp.runtime.errors import BackendError, SfppError

_RUNS = 15
# How much further from FP32 a backend's predictions may be than ONNX Runtime's of the same file, and than usual there.
_TOLERATED = 0.02
# A backend that gives less than this of the float32 file's own predictions is not in a lower precision, but wrong.
_LEAST = 0.8
_SECONDS = 45.0  # for all files on all backends: at 3840x2160 a round of them takes half a minute


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
) -> Mapping[Path, tuple[Latency, ...]]:
    """Time the network of each file on each backend, in turn with that of the first file.

    No more than two models are open at a time: at 3840x2160 each of them holds 3 GB from its first run on.

    Args:
        files: the float32 one first.
        backends: where to run them.
        notify: called with what is being done.

    Returns:
        The latencies by file, one a backend.

    Raises:
        BackendError: not one of them runs.
    """
    first, *others = files
    pairs: list[tuple[Path, ...]] = [(first, other) for other in others] or [(first,)]
    seconds = _SECONDS / (len(backends) * len(pairs))
    found: dict[Path, list[Latency]] = {file: [] for file in files}
    for backend, pair in itertools.product(backends, pairs):
        for file, latency in zip(pair, _in_turn(pair, backend, seconds=seconds, notify=notify), strict=True):
            if file != first or pair is pairs[0]:
                found[file].append(latency)
    rows = [each for row in found.values() for each in row]
    if all(each.failure for each in rows):
        reasons = dict.fromkeys(f"{each.backend}: {each.failure}" for each in rows)
        raise BackendError(f"nothing could be measured: {'; '.join(reasons)}")
    return {file: tuple(row) for file, row in found.items()}


def _in_turn(
    files: tuple[Path, ...], backend: BackendSpec, *, seconds: float, notify: Callable[[str], object]
) -> list[Latency]:
    campaign = Campaign(BenchSettings(files, (backend,), runs=_RUNS, seconds=seconds), notify=notify)
    with contextlib.closing(campaign):
        campaign.load()
        campaign.time()
    rows = campaign.report(interrupted=False).rows
    return [_latency(row, rows[0]) for row in rows]


def checked(
    timed: Mapping[Path, tuple[Latency, ...]], backends: Sequence[BackendSpec], evaluator: Evaluator, *, frames: int
) -> Mapping[Path, tuple[Latency, ...]]:
    """Return the latencies with those taken out that belong to wrong predictions: a fast wrong answer is none.

    Backends have faults: OpenVINO 2026.4 in float32 computes some INT8 convolutions wrong on CPUs with AMX. What fails
    the file's self-test was not timed at all, as in `sfpp-bench`; many frames, as here, show smaller faults too.

    Args:
        timed: by file, one a backend.
        backends: in the same order.
        evaluator: runs the files.
        frames: how many of its frames to ask about.
    """
    # What the backend's own precision does to the float32 file, which comes first: bfloat16 moves some keypoints.
    usual: dict[str, float] = {}
    found = {}
    for path, latencies in timed.items():
        expected = evaluator.evaluate(path, first=frames).accuracy.agreement
        rows = []
        for each, backend in zip(latencies, backends, strict=True):
            if each.p50_ms is None:
                rows.append(each)
                continue
            seen = expected  # where the file was evaluated
            if backend != REFERENCE_BACKEND:
                seen = evaluator.evaluate(path, first=frames, backend=backend).accuracy.agreement
            least = min(expected, usual.setdefault(each.backend, max(seen, _LEAST))) - _TOLERATED
            rows.append(each if seen >= least else _wrong(each, seen, expected))
        found[path] = tuple(rows)
    return found


def _wrong(latency: Latency, seen: float, expected: float) -> Latency:
    failure = f"wrong predictions: {seen:.1%} as FP32, but {expected:.1%} in ONNX Runtime"
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
