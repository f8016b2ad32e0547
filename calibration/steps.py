"""Making the FP16 and the INT8 file, step by step, each evaluated as soon as it is written."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx

from sfpp.calibration.context import CalibrationContext, Trials
from sfpp.calibration.fp16.float16_probe import measure_fp16, nodes_to_keep_float32
from sfpp.calibration.fp16.fp16_model import fp16_model, rounded_in_float32
from sfpp.calibration.int8.dense import prepared
from sfpp.calibration.int8.equalize import equalized
from sfpp.calibration.int8.histogram import Histograms, inputs_sha256, remembered
from sfpp.calibration.int8.int8_model import int8_model, tensors_to_observe
from sfpp.calibration.int8.observe import observe
from sfpp.calibration.int8.quantizable import quantizable, work_of
from sfpp.calibration.int8.ranges import ChosenRanges, choose_ranges, range_of, worst_layers
from sfpp.calibration.results import FileResult, Kept, LayerHistogram, Picture, Sensitivity
from sfpp.calibration.sensitivity import FEW, Fallback, by_block, sensitivities, within_budget

# Overflow and rounding hardly differ between frames.
_FP16_FRAMES = 8
# What is left of the error must be this little for channels of like size to be worth their price.
_WORTH_IT = 0.7
_PICTURES_PER_FILE = 3


@dataclass(frozen=True, eq=False)
class Int8Findings:
    """The INT8 file, and what was learned on the way."""

    file: FileResult
    fallback: Fallback
    histograms: tuple[LayerHistogram, ...]


def make_fp16(context: CalibrationContext) -> FileResult:
    """Write the FP16 file; nodes that float16 cannot hold on the calibration frames stay float32."""
    clock = context.clock
    kept = _float32_nodes(context, context.model)
    names = tuple(each.name for each in kept)
    with clock.step("writing FP16"):
        record = context.record(_FP16_FRAMES, kept=names, rest="fp32")
        half = fp16_model(context.model, keep=names)
        path = context.write(half, "fp16", record)
    seen = context.evaluated("evaluating FP16", path)
    with clock.step("evaluating FP16, rounded as a GPU does"):
        progress = partial(context.progress, "evaluating FP16, rounded")
        rounded = context.evaluate(rounded_in_float32(half), "fp16", progress=progress)
    drop = context.drop(rounded)
    return context.result(path, "fp16", seen, kept=kept, rounded=rounded.accuracy, drop_rounded=drop)


def make_int8(context: CalibrationContext, *, float32: Sequence[Kept] | None) -> Int8Findings:
    """Write the INT8 file, with as much in INT8 as the budget allows, and rank the blocks by their sensitivity.

    Args:
        context: what to work on.
        float32: the nodes that float16 cannot hold, where they are known from making the FP16 file.
    """
    base, is_equalized = _base(context)
    products = quantizable(base, context.form)
    blocks, work = by_block(products), work_of(base, products)
    observed = _observed(context, base, tensors_to_observe(base, context.form))
    chosen = _ranges(context, base, observed)
    trials = Trials(context, base, chosen.by_tensor)
    with context.clock.step("measuring the sensitivity of the blocks"):
        ranked = sensitivities(trials, blocks, progress=partial(context.progress, "ranking blocks"))
    fallback = _fallback(context, trials, work, blocks, ranked)
    finished = int8_model(base, chosen.by_tensor, nodes=fallback.nodes, rest=context.rest, form=context.form)
    if context.rest == "fp16":
        # Channels of like size have other values, which must be looked at anew.
        kept = float32 if float32 is not None and base is context.model else _float32_nodes(context, base)
        finished = fp16_model(finished, keep=[each.name for each in kept])
    with context.clock.step("writing INT8"):
        record = context.record(
            len(context.chosen.calibration),
            method=chosen.method,
            rest=context.rest,
            kept=tuple(each.name for each in fallback.kept),
            equalized=is_equalized,
        )
        path = context.write(finished, "int8", record)
    seen = context.evaluated("evaluating INT8", path)
    file = context.result(path, "int8", seen, method=chosen.method, rest=context.rest, kept=fallback.kept)
    return Int8Findings(file, fallback, worst_layers(observed, chosen.by_tensor, products))


def _base(context: CalibrationContext) -> tuple[onnx.ModelProto, bool]:
    """Return the float32 graph to start from: as it is, or with its channels brought to like sizes, if that helps.

    Both are the same function to the bit. The second has other values inside, which are harder to compare with
    PyTorch's, so that it must be worth it: it is for networks with outlier channels.
    """
    few = context.chosen.calibration.first(FEW)
    plain = prepared(context.model) if context.form.dense else context.model
    with context.clock.step("looking for outlier channels"):
        scaled = equalized(plain, context.evaluator.inputs(few))
        plain_error, scaled_error = (_error_by_few(context, each) for each in (plain, scaled))
    helps = scaled_error < _WORTH_IT * plain_error
    context.clock.notify(
        f"with channels of like size the outputs' relative squared error would be {scaled_error:.2%} instead of "
        f"{plain_error:.2%}: {'done' if helps else 'left as they are'}"
    )
    return (scaled, True) if helps else (plain, False)


def _error_by_few(context: CalibrationContext, base: onnx.ModelProto) -> float:
    """Return the error of the outputs with all products in INT8 and ranges of only a few frames."""
    few = context.chosen.calibration.first(FEW)
    observed = observe(base, tensors_to_observe(base, context.form), context.evaluator.inputs(few))
    ranges = {name: range_of(each, "percentile") for name, each in observed.items()}
    return Trials(context, base, ranges).evaluate(None, first=FEW).error


def _float32_nodes(context: CalibrationContext, model: onnx.ModelProto) -> tuple[Kept, ...]:
    """Return the nodes whose values float16 cannot hold on the calibration frames."""
    frames = context.chosen.calibration.first(_FP16_FRAMES)
    with context.clock.step("looking for values that float16 cannot hold"):
        return nodes_to_keep_float32(measure_fp16(model, context.evaluator.inputs(frames)))


def _observed(context: CalibrationContext, base: onnx.ModelProto, tensors: set[str]) -> Histograms:
    """Return the histograms of the tensors on the calibration frames, from the cache if nothing changed."""
    frames = context.chosen.calibration
    with context.clock.step("observing ranges"):
        # What the graph really takes: the same images are other inputs under another contract, or with other boxes.
        key = {
            "graph": hashlib.sha256(base.SerializeToString(deterministic=True)).hexdigest(),
            # Every frame is prepared once more for this, so not where nothing is remembered.
            "inputs": inputs_sha256(context.evaluator.inputs(frames)) if context.settings.cache else "",
            "tensors": sorted(tensors),
        }
        observed, known = remembered(
            key,
            lambda: observe(
                base,
                tensors,
                context.evaluator.inputs(frames),
                progress=lambda done: context.progress("observing ranges", done, len(frames)),
            ),
            use=context.settings.cache,
        )
    if known:
        context.clock.notify("ranges are known from an earlier run on the same model and frames")
    return observed


def _ranges(context: CalibrationContext, base: onnx.ModelProto, observed: Histograms) -> ChosenRanges:
    with context.clock.step("choosing ranges"):
        return choose_ranges(
            observed,
            context.settings.ranges,
            error_with=lambda ranges: Trials(context, base, ranges).evaluate(None, first=FEW).error,
            notify=context.clock.notify,
        )


def _fallback(
    context: CalibrationContext,
    trials: Trials,
    work: Mapping[str, int],
    blocks: Mapping[str, tuple[str, ...]],
    ranked: tuple[Sensitivity, ...],
) -> Fallback:
    """Return which nodes are in INT8: all, or what the budget allows."""
    limit = context.settings.max_drop
    if limit is None:
        return Fallback(tuple(work), (), drop=0.0, held=True, blocks=ranked)
    with context.clock.step("keeping within the budget"):
        found = within_budget(trials, work, blocks, ranked, max_drop=limit, notify=context.clock.notify)
    if not found.held:
        context.clock.notify(
            f"no choice of nodes keeps what is lost within {limit:g}: the file has all of them in INT8"
        )
    return found


def worst_pictures(context: CalibrationContext, files: Sequence[FileResult]) -> tuple[Picture, ...]:
    """Return a few frames of each file, those first on which it differs most from float32."""
    return tuple(picture for file in files for picture in _of_file(context, file.path, file.precision))


def _of_file(context: CalibrationContext, path: Path, precision: str) -> list[Picture]:
    evaluator = context.evaluator
    disagreement = context.disagreement[path]
    worst = sorted(disagreement, key=lambda name: -disagreement[name])[:_PICTURES_PER_FILE]
    found: dict[str, Picture] = {}
    with contextlib.closing(evaluator.open(path)) as model:
        for index, frame in enumerate(evaluator.frames):
            if frame.name in worst:
                prediction, _ = evaluator.task.predict(model, frame)
                image = evaluator.task.marked(frame, prediction, evaluator.expected(index))
                found[frame.name] = Picture(frame.name, precision, image, 100 * disagreement[frame.name])
    return [found[name] for name in worst]
