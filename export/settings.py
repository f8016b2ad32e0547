"""The settings of an export, and sizes as people say them: width x height, such as 3840x2160."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args

from sfpp.runtime.contract import InputDtype, MatchingRule, OutputKind, ResizeRule, Target, Task
from sfpp.runtime.errors import UsageError
from sfpp.runtime.options import check_choices, option

MAX_SIDE = 16384
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


def _blocks(text: str) -> int:
    """Read a number of blocks; 0 stands for all of a stage."""
    if text == "all":
        return 0
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of blocks; expected 1 or more, or all")
    return int(text)


@dataclass(frozen=True)
class ExportSettings:
    """What to export, for ``sfpp-export`` and :func:`sfpp.export.export_onnx`.

    Raises:
        UsageError: a value that cannot be meant.
    """

    variant: str | Path = option(
        "how to merge tokens: original, hq, fast, 2x2, downsample, kv2x2, or a recipe file (JSON); for an EDAFormer "
        "original or isr",
        default="original",
        metavar="NAME|FILE",
    )
    isr: str | None = option("an EDAFormer's own reduction factors, such as 2211-222", default=None, metavar="FACTORS")
    matching: MatchingRule = option(
        "where a token's most similar partner is looked for: exact everywhere, as published; local in its own cell and "
        "the eight around it, at linear cost",
        default="exact",
        choices=get_args(MatchingRule),
    )
    share_matching: int = option(
        "let so many blocks of a stage in a row use the matching of the first of them; 1 matches in each block, as "
        "published; all (in Python 0) once per stage",
        default=1,
        type=_blocks,
        metavar="N|all",
    )
    target: Target = option(
        "what the graph is written for: portable runs everywhere, the others are the same function in the operators "
        "that are fastest there",
        default="portable",
        choices=get_args(Target),
    )
    res: str | tuple[int, int] | None = option(
        "input size, width x height in pixels (default: 1920x1080; for pose 192x256)", default=None, metavar="WxH"
    )
    task: Task | None = option(
        "which demonstration model is meant; weights tell theirs by themselves", default=None, choices=get_args(Task)
    )
    output: OutputKind | None = option(
        "logits (batch, classes, h, w) float32 at the model's stride, which the runtime upsamples to any frame size; "
        "labels (batch, height, width) uint8 at the input's size; or for pose heatmaps (batch, keypoints, h, w) "
        "float32 (default: logits or heatmaps)",
        default=None,
        choices=get_args(OutputKind),
    )
    input: InputDtype = option(
        "uint8 for RGB frames (batch, height, width, 3) with normalization in the graph, float32 for normalized images "
        "(batch, 3, height, width)",
        default="uint8",
        choices=get_args(InputDtype),
    )
    batch: int = option("frames in one run, fixed", default=1, type=int, metavar="N")
    opset: int = option("version of the ONNX operators, 17 to 20", default=17, type=int, metavar="N")
    resize: ResizeRule = option(
        "how the runtime fits frames of another shape: letterbox keeps the aspect ratio, stretch does not",
        default="letterbox",
        choices=get_args(ResizeRule),
    )
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
        if self.res is not None:
            resolution_from(self.res)
        check_choices(self)
        if isinstance(self.batch, bool) or not isinstance(self.batch, int) or not 1 <= self.batch <= 64:
            raise UsageError(f"batch is {self.batch!r}, expected a whole number from 1 to 64")
        share = self.share_matching
        if isinstance(share, bool) or not isinstance(share, int) or share < 0:
            raise UsageError(f"share_matching is {share!r}, expected a number of blocks, or 0 for all of a stage")
        if not isinstance(self.opset, int) or self.opset not in OPSETS:
            raise UsageError(
                f"opset is {self.opset!r}, expected {OPSETS[0]} to {OPSETS[-1]}; 17 suits every TensorRT from 8.6 on"
            )
