"""The settings of an export, and sizes as people say them: width x height, such as 3840x2160."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from sfpp.runtime.contract import ColorOrder, InputSpec, Interpolation, MatchingRule, ResizeRule, Target, Task
from sfpp.runtime.errors import UsageError
from sfpp.runtime.options import check_choices, option

OutputChoice = Literal["logits", "labels", "heatmaps"]
InputChoice = Literal["uint8", "float32", "nv12", "nv12-bt709"]
MAX_SIDE = 16384
_MOST_FRAMES = 64
OPSETS = (17, 18, 19, 20)  # below 17 layer normalization is not one node; above 20 the tracing exporter does not write


class Resolution(NamedTuple):
    """A frame size in pixels, width first; as text ``3840x2160``."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def resolution_from(value: str | tuple[int, int]) -> Resolution:
    """Read ``"3840x2160"`` or ``(3840, 2160)``, width first.

    Raises:
        UsageError: not two whole numbers, or a side outside 1..16384.
    """
    width, height = _sides(value)
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise UsageError(
            f"--res is {width}x{height} (width x height), expected 1 to {MAX_SIDE} pixels on each side, "
            "such as 3840x2160"
        )
    return Resolution(width, height)


def _sides(value: object) -> tuple[int, int]:
    match = re.fullmatch(r"\s*(\d{1,9})\s*[xX]\s*(\d{1,9})\s*", value) if isinstance(value, str) else None
    if match is not None:
        return int(match[1]), int(match[2])
    # A list is what JSON and argument parsers make of a pair.
    if isinstance(value, tuple | list) and len(value) == 2 and all(type(side) is int for side in value):
        return value[0], value[1]
    raise UsageError(f"--res is {value!r}, expected WIDTHxHEIGHT in pixels, such as 3840x2160")


def input_choice(spec: InputSpec) -> InputChoice:
    """Return what ``--input`` was for an input."""
    if spec.layout == "NV12":
        return "nv12" if spec.matrix == "bt601" else "nv12-bt709"
    return spec.dtype


def _frames(text: str) -> int | str:
    """Read ``4`` as a number; a range stays what it is."""
    return int(text) if re.fullmatch("[0-9]{1,4}", text) else text


def batch_from(value: int | str) -> tuple[int, bool]:
    """Read ``4``, or ``"1..4"``: the largest number of frames of a run, and whether smaller ones will do.

    Raises:
        UsageError: something else, or more than 64.
    """
    match = re.fullmatch(r"(1\.\.)?([0-9]{1,2})", str(value)) if type(value) in (int, str) else None
    if match is None or not 1 <= int(match[2]) <= _MOST_FRAMES or (match[1] and int(match[2]) == 1):
        raise UsageError(
            f"batch is {value!r}, expected a whole number from 1 to {_MOST_FRAMES}, or a range such as 1..8"
        )
    return int(match[2]), bool(match[1])


def check_threshold(value: float | None) -> None:
    """Refuse what is no probability between 0 and 1; None passes.

    Raises:
        UsageError: it is none.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 < value < 1):
        raise UsageError(f"--threshold is {value!r}, expected a probability above 0 and below 1, such as 0.5")


def _blocks(text: str) -> int:
    """Read a number of blocks; 0 stands for all of a stage."""
    if text == "all":
        return 0
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of blocks; expected 1 or more, or all")
    return int(text)


@dataclass(frozen=True, kw_only=True)
class PreparationOptions:
    """How the training prepared images, where the checkpoint does not say it or is wrong; None is what it says.

    ``mean`` and ``std`` have one number for each channel, in the network's order, on the 0..255 scale.

    Raises:
        UsageError: a value that cannot be meant.
    """

    mean: tuple[float, ...] | None = option(
        "mean of each channel in training, 0..255, in the order of --color-order (default: what the checkpoint says, "
        "else ImageNet's)",
        default=None,
        type=float,
        nargs="+",
        metavar="N",
    )
    std: tuple[float, ...] | None = option(
        "standard deviation of each channel in training, likewise", default=None, type=float, nargs="+", metavar="N"
    )
    color_order: ColorOrder | None = option(
        "order of the channels in training (default: what the checkpoint says, else RGB)",
        default=None,
        choices=get_args(ColorOrder),
    )
    resize: ResizeRule | None = option(
        "how frames of another shape are fitted: letterbox keeps the aspect ratio, pad too, in the upper left corner, "
        "stretch does not (default: what the checkpoint says, else letterbox)",
        default=None,
        choices=get_args(ResizeRule),
    )
    interpolation: Interpolation | None = option(
        "how frames are resized: area (bilinear, the mean over the area from half the size on), linear (bilinear, as "
        "mmcv has it) or antialias (as Pillow and torchvision have it) (default: what the checkpoint says, else area)",
        default=None,
        choices=get_args(Interpolation),
    )
    align_corners: bool | None = option(
        "the network was trained with align_corners in its upsampling, or without (default: what the checkpoint says, "
        "else without)",
        default=None,
        action=argparse.BooleanOptionalAction,
    )

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("mean", "std"):
            if (values := getattr(self, name)) is not None:
                object.__setattr__(self, name, _channel_values(values, f"--{name}"))
        if self.std is not None and min(self.std) <= 0:
            raise UsageError(f"--std is {numbers_text(self.std)}, expected positive numbers")
        for values, flag in ((self.mean, "--mean"), (self.std, "--std")):
            # Nothing that is trained on bytes deviates by less than one of their steps.
            if values is not None and any(values) and max(map(abs, values)) < 1:
                meant = numbers_text([round(255 * value, 6) for value in values])
                raise UsageError(
                    f"{flag} is {numbers_text(values)}, which is on the 0..1 scale, expected 0..255: "
                    f"give {flag} {meant}"
                )


def numbers_text(values: Iterable[float]) -> str:
    """Return numbers as they are given on a command line."""
    return " ".join(f"{value:.9g}" for value in values)


def _channel_values(values: object, flag: str) -> tuple[float, ...]:
    """Return one number a channel.

    Raises:
        UsageError: not a list of finite numbers.
    """
    items = list(values) if isinstance(values, list | tuple) else []
    if not items or not all(type(item) in (int, float) and math.isfinite(item) for item in items):
        raise UsageError(f"{flag} is {values!r}, expected one number for each channel, such as 123.675 116.28 103.53")
    return tuple(map(float, items))


@dataclass(frozen=True)
class ExportSettings(PreparationOptions):
    """What to export, for ``sfpp-export`` and :func:`sfpp.export.export_onnx`.

    Raises:
        UsageError: a value that cannot be meant.
    """

    variant: str | Path = option(
        "how to merge tokens: original, hq, hq+, fast, fast+, 2x2, downsample, kv2x2, or a recipe file (JSON); for an "
        "EDAFormer original or isr",
        default="original",
        metavar="NAME|FILE",
    )
    isr: str | None = option("an EDAFormer's own reduction factors, such as 2211-222", default=None, metavar="FACTORS")
    matching: MatchingRule | None = option(
        "where a token's most similar partner is looked for: exact everywhere, as published; local in its own cell and "
        "the eight around it, at linear cost (default: exact, but local for fast+)",
        default=None,
        choices=get_args(MatchingRule),
    )
    share_matching: int = option(
        "let so many blocks of a stage in a row use the matching of the first of them; 1 matches in each block, as "
        "published; all (in Python 0) once per stage",
        default=1,
        type=_blocks,
        metavar="N|all",
    )
    size_weighted: bool = option(
        "let each merged key weigh by how many tokens it stands for, as hq+ and fast+ do; for networks that were "
        "trained without merging",
        default=False,
    )
    trained_with_merging: bool | None = option(
        "the network was trained with tokens merged, each of which weighed as one, or without (default: what the "
        "checkpoint says, else without)",
        default=None,
        action=argparse.BooleanOptionalAction,
    )
    target: Target = option(
        "what the graph is written for: portable runs everywhere, the others are the same function in the operators "
        "that are fastest there",
        default="portable",
        choices=get_args(Target),
    )
    res: str | tuple[int, int] | None = option(
        "input size, width x height in pixels (default: what the checkpoint says, else 1920x1080; for pose 192x256)",
        default=None,
        metavar="WxH",
    )
    task: Task | None = option(
        "which demonstration model is meant; weights tell theirs by themselves", default=None, choices=get_args(Task)
    )
    output: OutputChoice | None = option(
        "logits (batch, classes, h, w) float32 at the model's stride, which the runtime upsamples to any frame size; "
        "labels (batch, height, width) uint8 at the input's size, with --multi-label (batch, classes, height, width) "
        "of 0 and 1; or for pose heatmaps (batch, keypoints, h, w) float32 (default: logits or heatmaps; "
        "cameras are shown with labels that move along, for which logits are needed; otherwise labels save time on the "
        "processor)",
        default=None,
        choices=get_args(OutputChoice),
    )
    threshold: float | None = option(
        "probability over which a pixel is a class, for a network with one output and a sigmoid, or with --multi-label "
        "(default: the checkpoint's, else 0.5)",
        default=None,
        type=float,
        metavar="P",
    )
    multi_label: bool = option(
        "give each output a sigmoid of its own, so that a pixel has any number of classes; for networks that were "
        "trained so",
        default=False,
    )
    input: InputChoice = option(
        "uint8 for RGB frames (batch, height, width, 3) with normalization in the graph, float32 for normalized images "
        "(batch, channels, height, width), nv12 for frames as cameras and decoders give them, (batch, height * 3 / 2, "
        "width) uint8 of limited range, whose colors the graph makes as OpenCV does, by BT.601; nv12-bt709 for frames "
        "in BT.709, as most cameras send from 1280x720 on (with the other one, colors are wrong by a little)",
        default="uint8",
        choices=get_args(InputChoice),
    )
    batch: int | str = option(
        "frames in one run: N, or 1..N for any number up to N, which one file then takes",
        default=1,
        type=_frames,
        metavar="N|1..N",
    )
    opset: int = option("version of the ONNX operators, 17 to 20", default=17, type=int, metavar="N")
    classes: str | Path | None = option(
        "class names and colors: cityscapes, ade20k, camvid, voc, or a file (default: what the checkpoint says)",
        default=None,
        metavar="NAME|FILE",
    )
    weights_key: str | None = option(
        "which network of a checkpoint that holds several, such as ema_state_dict (default: the plain one)",
        default=None,
        metavar="NAME",
    )
    keypoints: str | Path | None = option(
        "keypoints of a pose network: coco17, lsp14, jump20, or a JSON file (default: what the checkpoint says, or the "
        "set that has as many keypoints)",
        default=None,
        metavar="NAME|FILE",
    )
    image: str | os.PathLike[str] | None = option(
        "image for the check and the self-test (default: one that comes with sfpp)", default=None, metavar="FILE"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.res is not None:
            resolution_from(self.res)
        batch_from(self.batch)
        check_threshold(self.threshold)
        share = self.share_matching
        if isinstance(share, bool) or not isinstance(share, int) or share < 0:
            raise UsageError(f"share_matching is {share!r}, expected a number of blocks, or 0 for all of a stage")
        if not isinstance(self.opset, int) or self.opset not in OPSETS:
            raise UsageError(
                f"opset is {self.opset!r}, expected {OPSETS[0]} to {OPSETS[-1]}; 17 suits every TensorRT from 8.6 on"
            )
