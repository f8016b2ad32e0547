"""Making the FP16 and the INT8 file, step by step, each judged as soon as it is written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from sfpp.calibration.fp16.converting import fp16_model, simulated_fp16
from sfpp.calibration.fp16.measuring import condemned, measure_fp16
from sfpp.calibration.graph import write_model
from sfpp.calibration.int8.choosing import ChosenRanges, choose_ranges, work_of, worst_layers
from sfpp.calibration.int8.converting import int8_model, tensors_to_observe
from sfpp.calibration.int8.dense import prepared
from sfpp.calibration.int8.equalizing import equalized
from sfpp.calibration.int8.observing import observe
from sfpp.calibration.int8.quantizable import quantizable
from sfpp.calibration.int8.range_cache import Histograms, inputs_sha256, remembered
from sfpp.calibration.int8.ranges import Range, range_of
from sfpp.calibration.judging.examination import drop_of
from sfpp.calibration.judging.sensitivity import Fallback, by_block, harms, within_budget
from sfpp.calibration.judging.trials import Trials
from sfpp.calibration.material import Material
from sfpp.calibration.results import FileResult, Harm, Kept, LayerHistogram

# Frames for what is asked of many candidates: enough to rank by, few enough to wait for.
_FEW = 6
# Overflow and rounding hardly differ between frames.
_FP16_FRAMES = 8
# What is left of the error must be this little for channels of like size to be worth their price.
_WORTH_IT = 0.7


@dataclass(frozen=True, eq=False)
class Int8Findings:
    """The INT8 file, and what was learned on the way."""

    file: FileResult
    fallback: Fallback
    histograms: tuple[LayerHistogram, ...]


def make_fp16(material: Material) -> FileResult:
    """Write the FP16 file; nodes that float16 cannot hold on the calibration frames stay float32."""
    clock, examiner = material.clock, material.examiner
    kept = _float32_nodes(material, material.model)
    names = tuple(each.name for each in kept)
    with clock.step("writing FP16"):
        record = material.record(_FP16_FRAMES, kept=names, rest="fp32")
        path = material.write(fp16_model(material.model, keep=names), "fp16", record)
    with clock.step("judging FP16"):
        seen = examiner.examine(path, progress=material.part("judging FP16"))
    with clock.step("judging FP16, rounded as a GPU does"):
        simulated = material.folder / "simulated.onnx"
        write_model(simulated_fp16(material.model, keep=names), replace(material.contract, precision="fp16"), simulated)
        rounded = examiner.examine(simulated, progress=material.part("judging FP16, rounded"))
        simulated.unlink()
    return material.result(
        path,
        "fp16",
        seen,
        kept=kept,
        rounded=rounded.accuracy,
        drop_rounded=drop_of(rounded.accuracy, examiner.reference.accuracy),
    )


def make_int8(material: Material, *, float32: Sequence[Kept] | None) -> Int8Findings:
    """Write the INT8 file, with as much in INT8 as the budget allows, and rank the blocks by the harm they do.

    Args:
        material: what to work on.
        float32: the nodes that float16 cannot hold, where they are known from making the FP16 file.
    """
    base, is_equalized = _base(material)
    products = quantizable(base, material.form)
    blocks, work = by_block(products), work_of(base, products)
    observed = _observed(material, base, tensors_to_observe(base, material.form))
    chosen = _ranges(material, base, observed)
    trials = _trials(material, base, chosen.by_tensor)
    with material.clock.step("ranking the blocks by what INT8 does to them"):
        ranked = harms(trials, blocks, frames=_FEW, progress=material.part("ranking blocks"))
    fallback = _fallback(material, trials, work, blocks, ranked)
    finished = int8_model(base, chosen.by_tensor, nodes=fallback.nodes, rest=material.rest, form=material.form)
    if material.rest == "fp16":
        # Channels of like size have other values, which must be looked at anew.
        kept = float32 if float32 is not None and base is material.model else _float32_nodes(material, base)
        finished = fp16_model(finished, keep=[each.name for each in kept])
    with material.clock.step("writing INT8"):
        record = material.record(
            len(material.chosen.calibration),
            method=chosen.method,
            rest=material.rest,
            kept=tuple(each.name for each in fallback.kept),
            equalized=is_equalized,
        )
        path = material.write(finished, "int8", record)
    with material.clock.step("judging INT8"):
        seen = material.examiner.examine(path, progress=material.part("judging INT8"))
    file = material.result(path, "int8", seen, method=chosen.method, rest=material.rest, kept=fallback.kept)
    return Int8Findings(file, fallback, worst_layers(observed, chosen.by_tensor, products))


def _base(material: Material) -> tuple[onnx.ModelProto, bool]:
    """Return the float32 graph to start from: as it is, or with its channels brought to like sizes, if that helps.

    Both are the same function to the bit. The second has other values inside, which are harder to compare with
    PyTorch's, so that it must be worth it: it is for networks with outlier channels.
    """
    few = material.chosen.calibration.first(_FEW)
    plain = prepared(material.model) if material.form.dense else material.model
    with material.clock.step("looking for outlier channels"):
        scaled = equalized(plain, material.examiner.inputs(few))
        plain_error, scaled_error = (_error_by_few(material, each) for each in (plain, scaled))
    helps = scaled_error < _WORTH_IT * plain_error
    material.notify(
        f"with channels of like size the outputs' relative squared error would be {scaled_error:.2%} instead of "
        f"{plain_error:.2%}: {'done' if helps else 'left as they are'}"
    )
    return (scaled, True) if helps else (plain, False)


def _error_by_few(material: Material, base: onnx.ModelProto) -> float:
    """Return the error of the outputs with all products in INT8 and ranges of only a few frames."""
    few = material.chosen.calibration.first(_FEW)
    observed = observe(base, tensors_to_observe(base, material.form), material.examiner.inputs(few))
    ranges = {name: range_of(each, "percentile") for name, each in observed.items()}
    return _trials(material, base, ranges).examine(None, first=_FEW).error


def _float32_nodes(material: Material, model: onnx.ModelProto) -> tuple[Kept, ...]:
    """Return the nodes whose values float16 cannot hold on the calibration frames."""
    frames = material.chosen.calibration.first(_FP16_FRAMES)
    with material.clock.step("looking for values that float16 cannot hold"):
        return condemned(measure_fp16(model, material.examiner.inputs(frames)))


def _trials(material: Material, base: onnx.ModelProto, ranges: Mapping[str, Range]) -> Trials:
    # Judged with a float32 rest: that is faster on a CPU, and tells what INT8 alone does.
    return Trials(
        lambda nodes: int8_model(base, ranges, nodes=nodes, form=material.form),
        material.contract,
        material.examiner,
        folder=material.folder,
    )


def _observed(material: Material, base: onnx.ModelProto, tensors: set[str]) -> Histograms:
    """Return the histograms of the tensors on the calibration frames, from the cache if nothing changed."""
    frames = material.chosen.calibration
    with material.clock.step("observing ranges"):
        # What the graph really takes: the same pictures are other inputs under another contract, or with other boxes.
        key = {
            "graph": hashlib.sha256(base.SerializeToString(deterministic=True)).hexdigest(),
            # Every frame is prepared once more for this, so not where nothing is remembered.
            "inputs": inputs_sha256(material.examiner.inputs(frames)) if material.settings.cache else "",
            "tensors": sorted(tensors),
        }
        observed, known = remembered(
            key,
            lambda: observe(
                base,
                tensors,
                material.examiner.inputs(frames),
                progress=lambda done: material.progress("observing ranges", done, len(frames)),
            ),
            use=material.settings.cache,
        )
    if known:
        material.notify("ranges are known from an earlier run on the same model and frames")
    return observed


def _ranges(material: Material, base: onnx.ModelProto, observed: Histograms) -> ChosenRanges:
    with material.clock.step("choosing ranges"):
        return choose_ranges(
            observed,
            material.settings.ranges,
            error_with=lambda ranges: _trials(material, base, ranges).examine(None, first=_FEW).error,
            notify=material.notify,
        )


def _fallback(
    material: Material,
    trials: Trials,
    work: Mapping[str, int],
    blocks: Mapping[str, tuple[str, ...]],
    ranked: tuple[Harm, ...],
) -> Fallback:
    """Return which nodes are in INT8: all, or what the budget allows."""
    limit = material.settings.max_drop
    if limit is None:
        return Fallback(tuple(work), (), drop=0.0, held=True, blocks=ranked)
    with material.clock.step("keeping within the budget"):
        found = within_budget(
            trials,
            work,
            blocks,
            ranked,
            max_drop=limit,
            drop=trials.drop(tuple(work)),
            frames=_FEW,
            notify=material.notify,
        )
    if not found.held:
        material.notify(f"no choice of nodes keeps what is lost within {limit:g}: the file has all of them in INT8")
    return found
