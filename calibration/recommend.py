"""Which of the files to use on this machine, in words that say why."""

from __future__ import annotations

from collections.abc import Sequence

from sfpp.calibration.results import FileResult, Latency, Recommendation

# Points of mean IoU or PCK, or per cent of the labels, that speed is worth where the user set no limit.
DEFAULT_LIMIT = 0.5
# A smaller gain is within what a machine's mood does to a median, and not worth a file of its own.
_LEAST_GAIN = 1.1
# Rounding to float16 that costs no more than this is no reason to look further on a GPU.
_FP16_LIMIT = 0.1


def recommend(files: Sequence[FileResult], *, max_drop: float | None) -> Recommendation:
    """Choose the fastest file that loses no more than it may; the float32 one, which comes first, loses nothing.

    Files are compared by their best backend: what a user would pick. What is right for a GPU cannot be timed on a CPU,
    so that it is said by accuracy and size alone.
    """
    limit = DEFAULT_LIMIT if max_drop is None else max_drop
    base = fastest(files[0])
    sentences = ["Nothing was timed, so this goes by accuracy alone."]
    if base is not None:
        sentences = [f"FP32 at its best takes {base.p50_ms:.1f} ms ({base.backend})."]
    chosen, best_gain = files[0], _LEAST_GAIN
    for each in files[1:]:
        gain = _gain(each, files[0])
        sentences.append(_verdict(each, gain, limit))
        if gain is not None and gain >= best_gain and each.drop <= limit:
            chosen, best_gain = each, gain
    return Recommendation(chosen.precision, " ".join([*sentences, *_for_gpu(files[1:], limit)]))


def fastest(file: FileResult) -> Latency | None:
    """Return the backend on which the file took least time; None if it was not timed."""
    timed = [each for each in file.latencies if each.p50_ms is not None]
    return min(timed, key=lambda each: each.p50_ms or 0.0, default=None)


def _gain(file: FileResult, reference: FileResult) -> float | None:
    """Return how many times as fast as float32 the file is, each on its best backend; None if one was not timed."""
    own, base = fastest(file), fastest(reference)
    if own is None or base is None or not own.p50_ms or not base.p50_ms:
        return None
    same = next((each.p50_ms for each in reference.latencies if each.backend == own.backend), None)
    if own.speedup is None or same is None:
        return base.p50_ms / own.p50_ms
    # The speedup is of runs in the same rounds, which a busy machine slows alike; medians of different runs are not.
    return own.speedup * base.p50_ms / same


def _verdict(file: FileResult, gain: float | None, limit: float) -> str:
    name, own = file.precision.upper(), fastest(file)
    unit = _unit(file)
    change = f"loses {file.drop:.2f} {unit}" if file.drop >= 0.005 else f"loses nothing (less than 0.01 {unit})"
    if file.drop > limit:
        change += f", more than the {limit:g} that it may"
    if gain is None or own is None:
        return f"{name} {change}."
    return f"{name} {change} and is {gain:.2f}x as fast ({own.p50_ms:.1f} ms, {own.backend})."


def _unit(file: FileResult) -> str:
    return "points" if file.accuracy.against_truth is not None else "% of the predictions"


def _for_gpu(files: Sequence[FileResult], limit: float) -> list[str]:
    sentences = []
    for each in files:
        if each.precision == "fp16":
            rounded = each.drop_rounded if each.drop_rounded is not None else each.drop
            allowed = max(_FP16_LIMIT, limit)
            verdict = "within" if rounded <= allowed else "above"
            sentences.append(
                f"On a GPU this FP16 file would lose {max(rounded, 0):.2f} {_unit(each)} ({verdict} the limit of "
                f"{allowed:g}), at half the size."
            )
        elif each.drop <= limit:
            sentences.append("INT8 may be faster on a GPU; measure it there against FP16 before using it.")
    return sentences
