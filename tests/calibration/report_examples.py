"""Reports as calibrating could have made them, without calibrating anything."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from sfpp.calibration.results import (
    Accuracy,
    CalibrationReport,
    FileResult,
    FramesUsed,
    Kept,
    Latency,
    LayerHistogram,
    Picture,
    Recommendation,
    Sensitivity,
)
from sfpp.runtime.contract import InputSpec, KeypointSpec, ModelContract, OutputSpec
from sfpp.tooling.marks import marked_labels

CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
COLORS = ((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0))
PALETTE = tuple(COLORS[index % len(COLORS)] for index in range(len(CLASSES)))
IOU = (0.921, 0.794, 0.214, 0.953, 0.812, 0.741, 0.331, 0.412, 0.803, 0.462, 0.517)
LOST_BY_INT8 = (0.001, 0.004, 0.061, 0.002, 0.009, 0.003, 0.034, 0.012, 0.006, 0.021, -0.004)
JOINTS = ("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "head_top")
IN_A_CONTRACT = '<script>alert("x")</script>\'&\u202e'  # it refuses worse
HOSTILE = f"{IN_A_CONTRACT}\x00\udcff"
MACHINE = {
    "processor": "13th Gen Intel(R) Core(TM) i7-1360P",
    "cores": 16,
    "usable_cores": 4,
    "memory_bytes": 33_361_854_464,
    "instruction_sets": ["avx2", "avx_vnni"],
    "system": "Linux-6.8.0-x86_64-with-glibc2.36",
    "python": "3.11.7",
    "onnxruntime": "1.23.0",
    "openvino": "2025.4.0",
    "numpy": None,
}


def contract(**changes) -> ModelContract:
    values = {
        "task": "segmentation",
        "family": "segformer",
        "size": "b0",
        "variant": "fast",
        "input": InputSpec(name="frame", height=360, width=480),
        "outputs": (OutputSpec("logits", "logits", 4),),
        "classes": CLASSES,
        "palette": PALETTE,
        "checkpoint_sha256": "9f2c" * 16,
        "sfpp_version": "0.1.0",
    }
    return ModelContract(**{**values, **changes})


def frames(**changes) -> FramesUsed:
    used = FramesUsed(
        source="data/camvid/train/images",
        calibration=128,
        held_out=233,
        sha256="4be1" * 16,
        selection="diverse",
        seed=0,
        with_truth=True,
    )
    return replace(used, **changes)


def accuracy(iou, *, agreement, boundary_f) -> Accuracy:
    known = [value for value in iou if not math.isnan(value)]
    by_class = dict(zip(CLASSES, iou, strict=True))
    return Accuracy(agreement, boundary_f, mean_iou=sum(known) / len(known), iou_by_class=by_class)


def segmentation() -> CalibrationReport:
    """Truth, two backends, a limit that is held, everything measured."""
    exact = accuracy(IOU, agreement=1.0, boundary_f=0.6127)
    half = accuracy([value - 0.0001 for value in IOU], agreement=0.99962, boundary_f=0.6126)
    rounded = accuracy([value - 0.0008 for value in IOU], agreement=0.99871, boundary_f=0.6119)
    lossy = accuracy(np.subtract(IOU, LOST_BY_INT8).tolist(), agreement=0.98204, boundary_f=0.5984)
    norms = [Kept(f"/backbone/stages.{i // 2}/blocks.{i % 2}/norm1/Pow", "overflows in float16") for i in range(8)]
    harmful = (
        Kept("stages.0/blocks.0", "alone in INT8 it changes 2.31 % of the predictions"),
        Kept("stages.3/blocks.1", "alone in INT8 it changes 0.94 % of the predictions"),
    )
    files = (
        FileResult(Path("segformer-b0-fast-480x360.onnx"), "fp32", 15_021_338, exact, latencies=times(48.21, 31.94)),
        FileResult(
            Path("segformer-b0-fast-480x360.fp16.onnx"),
            "fp16",
            7_640_112,
            half,
            drop=100 * (exact.mean_iou - half.mean_iou),
            latencies=times(52.77, 31.08, fp32=(48.21, 31.94)),
            kept=(*norms, Kept("/decode_head/Resize", "the library has no float16 kernel for it")),
            rounded=rounded,
            drop_rounded=100 * (exact.mean_iou - rounded.mean_iou),
        ),
        FileResult(
            Path("segformer-b0-fast-480x360.int8.onnx"),
            "int8",
            4_310_904,
            lossy,
            drop=100 * (exact.mean_iou - lossy.mean_iou),
            latencies=times(29.4, 17.02, fp32=(48.21, 31.94)),
            method="entropy",
            rest="fp32",
            kept=harmful,
        ),
    )
    return CalibrationReport(
        model=Path("models/segformer-b0-fast-480x360.onnx"),
        contract=contract(),
        frames=frames(),
        files=files,
        recommendation=Recommendation(
            "int8",
            "It is 1.9 times as fast as FP32 on openvino and loses 1.35 points of mIoU, mostly of poles and signs.",
        ),
        sensitivity=sensitivity(),
        histograms=tuple(layer_histogram(index) for index in range(6)),
        pictures=pictures(),
        max_drop=1.5,
        budget_held=True,
        machine=dict(MACHINE),
        seconds={"choosing frames": 3.21, "FP16": 8.4, "INT8": 94.3, "sensitivity": 212.0, "timing": 61.8},
        notes=("The graph merges tokens; which ones may differ between precisions where similarities are near ties.",),
    )


def times(onnxruntime_ms, openvino_ms, *, fp32=None) -> tuple[Latency, ...]:
    speedups = (None, None) if fp32 is None else (fp32[0] / onnxruntime_ms, fp32[1] / openvino_ms)
    return Latency("onnxruntime", onnxruntime_ms, speedups[0]), Latency("openvino", openvino_ms, speedups[1])


def sensitivity(parts: int = 30) -> tuple[Sensitivity, ...]:
    return tuple(
        Sensitivity(f"stages.{i % 4}/blocks.{i // 4}", 6 + i % 5, 2.31 * 0.8**i, 0.0041 * 0.7**i, kept=i in (0, 1))
        for i in range(parts)
    )


def layer_histogram(index: int) -> LayerHistogram:
    """Magnitudes with a long tail, clipped somewhere in it."""
    values = np.abs(np.random.default_rng(index).standard_t(2 + index, 20_000))
    counts, edges = np.histogram(values, bins=512)
    name = f"/backbone/stages.{index % 4}/blocks.{index}/mlp/fc2/MatMul"
    return LayerHistogram(name, counts, float(edges[-1]), float(edges[-1]) * (0.2 + 0.12 * index), 0.003 * 0.5**index)


def pictures() -> tuple[Picture, ...]:
    """Two small frames of stripes, in which the second class has moved."""
    reference = np.repeat(np.arange(6, dtype=np.uint8), 8)[np.newaxis].repeat(32, axis=0)
    shown = []
    for shift, precision in ((1, "fp16"), (3, "int8")):
        labels = np.roll(reference, shift, axis=1)
        frame = np.full((32, 48, 3), 160, np.uint8)
        marked = marked_labels(frame, labels, reference, PALETTE)
        shown.append(Picture("0001TP_008550.jpg", precision, marked, 100 * float(np.mean(labels != reference))))
    return tuple(shown)


def without_truth() -> CalibrationReport:
    """No truth, no limit, one backend that failed on INT8, judged on the frames of calibration."""
    whole = segmentation()
    failed = (
        Latency("onnxruntime", 29.4, 1.64),
        Latency("openvino", None, None, failure="no engine for node /a/MatMul"),
    )
    files = [
        replace(
            file,
            accuracy=Accuracy(file.accuracy.agreement, file.accuracy.boundary_f),
            drop=drop,
            rounded=None,
            drop_rounded=None,
        )
        for file, drop in zip(whole.files, (0.0, 0.04, 1.8), strict=True)
    ]
    files[2] = replace(files[2], latencies=failed)
    return replace(
        whole,
        files=tuple(files),
        frames=frames(with_truth=False, overlapping=True, held_out=64, calibration=64, source="drive.mp4"),
        recommendation=Recommendation("fp16", "INT8 changes 1.80 % of the labels, and does not run on openvino."),
        max_drop=None,
        budget_held=None,
        histograms=(),
        pictures=(),
        sensitivity=(),
    )


def refused() -> CalibrationReport:
    """INT8 lost more than it may, and nothing is faster here."""
    whole = segmentation()
    return replace(
        whole,
        files=(
            whole.files[0],
            whole.files[1],
            replace(whole.files[2], drop=4.83, latencies=times(61.0, 33.0, fp32=(48, 32))),
        ),
        recommendation=Recommendation(
            "fp32", "Neither file is faster on this machine, and INT8 loses 4.83 points of mIoU."
        ),
        max_drop=1.0,
        budget_held=False,
    )


def pose() -> CalibrationReport:
    """Keypoints with truth; no limit."""
    whole = segmentation()
    spec = KeypointSpec(JOINTS)
    scores = np.linspace(0.71, 0.97, len(JOINTS))
    files = tuple(
        replace(
            file,
            accuracy=pose_accuracy(scores - loss, agreement=1 - 2 * loss),
            drop=100 * loss,
            rounded=pose_accuracy(scores - 0.001, agreement=0.998) if file.precision == "fp16" else None,
            drop_rounded=0.1 if file.precision == "fp16" else None,
        )
        for file, loss in zip(whole.files, (0.0, 0.0, 0.006), strict=True)
    )
    return replace(
        whole,
        contract=contract(
            task="pose", keypoints=spec, classes=(), palette=(), outputs=(OutputSpec("heatmaps", "heatmaps", 4),)
        ),
        files=files,
        pictures=(),
        max_drop=None,
        budget_held=None,
        recommendation=Recommendation("int8", "It is faster and loses 0.6 points of PCK."),
    )


def pose_accuracy(scores, *, agreement) -> Accuracy:
    return Accuracy(
        agreement, pck=float(scores.mean()), pck_by_keypoint=dict(zip(JOINTS, scores.tolist(), strict=True))
    )


def hostile() -> CalibrationReport:
    """Names that are markup, quotes, control characters and halves of characters, wherever a name can be."""
    whole = segmentation()
    files = tuple(
        replace(
            file,
            path=Path(f"{HOSTILE}.onnx"),
            accuracy=replace(file.accuracy, iou_by_class={HOSTILE: 0.5, **file.accuracy.iou_by_class}),
            latencies=(Latency(HOSTILE, None, None, failure=HOSTILE),),
            method=HOSTILE,
            kept=(Kept(HOSTILE, HOSTILE),),
        )
        for file in whole.files
    )
    return replace(
        whole,
        model=Path(f"{HOSTILE}.onnx"),
        contract=contract(family=IN_A_CONTRACT, sfpp_version=IN_A_CONTRACT, checkpoint_sha256=IN_A_CONTRACT),
        frames=frames(source=HOSTILE, sha256=HOSTILE, selection=HOSTILE),
        files=files,
        recommendation=Recommendation("int8", HOSTILE),
        sensitivity=(Sensitivity(HOSTILE, 1, 1.0, 0.1, kept=True),),
        histograms=(replace(layer_histogram(0), node=HOSTILE),),
        pictures=(replace(pictures()[0], name=HOSTILE),),
        machine={HOSTILE: HOSTILE, "list": [HOSTILE]},
        seconds={HOSTILE: 1.0},
        notes=(HOSTILE,),
    )


def many_classes() -> CalibrationReport:
    """150 classes, of which some do not occur, one only in one of the files."""
    whole = segmentation()
    rng = np.random.default_rng(3)
    names = [f"class number {index} of a very long list, with a long name" for index in range(150)]
    exact = rng.uniform(0.1, 0.95, 150)
    exact[::10] = math.nan
    files = []
    for file, noise in zip(whole.files, (0.0, 0.001, 0.02), strict=True):
        iou = exact + rng.normal(0, noise, 150)
        if file.precision == "int8":
            iou[1] = math.nan
        scores = replace(
            file.accuracy, mean_iou=float(np.nanmean(iou)), iou_by_class=dict(zip(names, iou.tolist(), strict=True))
        )
        files.append(replace(file, accuracy=scores, rounded=None))
    palette = tuple(PALETTE[index % len(PALETTE)] for index in range(150))
    return replace(whole, contract=contract(classes=tuple(names), palette=palette), files=tuple(files))


def nothing_measured() -> CalibrationReport:
    """Figures that are None, NaN and infinite, and empty everything."""
    nan, inf = math.nan, math.inf
    files = (
        FileResult(Path("a.onnx"), "fp32", 1, Accuracy(nan), latencies=(Latency("x", None, None, failure="no"),)),
        FileResult(Path("b.onnx"), "fp16", 1, Accuracy(nan, mean_iou=nan, iou_by_class={"sky": nan}), drop=nan),
        FileResult(Path("c.onnx"), "int8", 1, Accuracy(inf, boundary_f=nan), latencies=(Latency("x", nan, inf),)),
    )
    files = (files[0], replace(files[1], latencies=files[0].latencies), files[2])
    return CalibrationReport(
        model=Path("a.onnx"),
        contract=contract(checkpoint_sha256="", sfpp_version=""),
        frames=frames(calibration=0, held_out=0, sha256=""),
        files=files,
        recommendation=Recommendation("fp16", ""),
        sensitivity=(Sensitivity("a", 1, nan, nan),),
        histograms=(
            LayerHistogram("empty", np.zeros(8, np.int64), 0.0, 0.0, nan),
            LayerHistogram("infinite", np.ones(8, np.int64), inf, nan, inf),
        ),
        max_drop=1.0,
        machine={"processor": None, "libraries": [], "memory_bytes": None},
        seconds={"step": nan},
    )


EXAMPLES = {
    example.__name__: example
    for example in (segmentation, without_truth, refused, pose, hostile, many_classes, nothing_measured)
}
