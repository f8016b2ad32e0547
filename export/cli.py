"""The command ``sfpp-export``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from sfpp.export.catalog import is_size_weighted
from sfpp.export.settings import ExportSettings, PreparationOptions
from sfpp.runtime.cli.console import command_parser, example_source, notes_of, report, run_command
from sfpp.runtime.options import add_options

if TYPE_CHECKING:
    from sfpp.export.to_onnx import ExportReport
    from sfpp.runtime.contract import ModelContract

_DESCRIPTION = """\
Export a trained SegFormer, SegFormer++ or EDAFormer to an ONNX file, with token merging in the graph.
The file is run in ONNX Runtime and compared with PyTorch before it is kept."""

_EPILOG = """\
variants (how many tokens attention works on):
  original    all of them
  hq          merge 60 % of keys and values in stages 1-2, 80 % of queries in stages 3-4
  hq+         the same, where a merged key weighs as all tokens that it stands for (ours)
  fast        merge 90 % of both
  fast+       the same numbers: keys and values by local k-means, weighed likewise; nearer
              to original than fast, at the same cost (ours)
  2x2         average queries in 2x2 windows, in every stage
  downsample  halve the input instead; nothing is merged
  kv2x2       average keys and values in 2x2 windows in stages 1-3 (ours)
  isr         EDAFormer only: inference spatial reduction 2211-222, its authors' choice;
              --isr takes other factors: encoder stages 1-4, then decoder stages 2-4
  FILE.json   your own recipe: a list of four objects, one per stage, such as
              [{"kv_mode": "bsm", "kv_r": 0.6, "kv_sx": 2, "kv_sy": 2}, {}, {"q_mode": "n2d", "q_s": [2, 2]}, {}]

examples:
  sfpp-export --variant fast --res 3840x2160            the demonstration model, for 4K frames
  sfpp-export --variant fast --matching local --target openvino --res 1920x1080
  sfpp-export --weights iter_160000.pth --classes cityscapes --variant hq --res 2048x1024
  sfpp-export --weights nvidia-segformer-b2/ --output labels -o street.onnx
  sfpp-export --weights edaformer_t.pth --isr 2222-222 --res 2048x1024
  sfpp-export --task pose --variant hq                  the demonstration pose model
  sfpp-export --weights pose.pth --keypoints coco17 --res 288x384 --batch 4"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; it imports nothing heavy."""
    parser = command_parser("sfpp-export", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument(
        "--weights",
        metavar="PATH",
        help="checkpoint (.pth, .safetensors) or Transformers folder; default: the demo model",
    )
    preparing = [field.name for field in fields(PreparationOptions)]
    add_options(
        parser, ExportSettings, *(field.name for field in fields(ExportSettings) if field.name not in preparing)
    )
    add_options(parser.add_argument_group("how the training prepared images"), ExportSettings, *preparing)
    parser.add_argument(
        "-o", "--path", metavar="FILE", help="file to write (default: named after model, variant and size)"
    )
    return parser


def command() -> int:
    """Run the command as a program of its own, supervised, and return its exit code."""
    from sfpp.tooling.supervised import supervised  # main needs none of it

    return supervised("sfpp-export", main)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command here and return its exit code."""
    return run_command("sfpp-export", build_parser().parse_args(argv), _run)


def _run(arguments: argparse.Namespace) -> int:
    from sfpp.export import export_onnx  # not at the top: --help must not wait for torch

    report(describe(export_onnx(**vars(arguments), notify=notes_of())))
    return 0


def describe(done: ExportReport) -> str:
    """Return what was made, how it agrees with PyTorch, and the next command."""
    contract = done.contract
    spec, total = contract.input, sum(done.seconds.values())
    lines = [
        f"{done.path}  ({done.size_bytes / 1e6:.1f} MB, {total:.1f} s)",
        f"  {contract.family}-{contract.size} {_variant(contract)}, {spec.width}x{spec.height} (width x height), "
        f"{_names(contract)}, {contract.outputs[0].kind}, opset {contract.opset}, "
        f"{(contract.multiply_adds or 0) / 1e9:.1f} G multiply-adds",
        f"  against PyTorch: {done.parity.summary()}",
    ]
    lines += _sigmoids(contract, done.threshold_source)
    for stage in done.planned_tokens:
        grid_h, grid_w = stage.grid_hw
        context = stage.key_value_grid_hw[0] * stage.key_value_grid_hw[1]
        lines.append(
            f"  {stage.name}: {grid_h}x{grid_w} grid, queries {_shrunk(grid_h * grid_w, stage.query)}, "
            f"keys/values {_shrunk(context, stage.key_value)}"
        )
    if contract.licence:
        lines.append(f"  weights: {contract.licence}")
    lines += [f"  note: {note}" for note in done.notes]
    lines.append(f"next: sfpp-run {shlex.quote(str(done.path))} {example_source(contract.task)}")
    return "\n".join(lines)


def _variant(contract: ModelContract) -> str:
    """Name the variant, how its tokens were matched and what the graph is for, as far as that is not the default."""
    words = [contract.variant]
    if contract.matching != "exact":
        words.append(f"with {contract.matching} matching")
    if contract.share_matching != 1:
        words.append(f"shared by {contract.share_matching or 'all'} blocks")
    if is_size_weighted(contract):
        words.append("with keys weighed by size")
    if contract.target != "portable":
        words.append(f"for {contract.target}")
    return " ".join(words)


def _names(contract: ModelContract) -> str:
    if contract.keypoints is not None:
        return f"{len(contract.keypoints.names)} keypoints"
    return f"{len(contract.classes)} classes"


def _sigmoids(contract: ModelContract, source: str) -> list[str]:
    """Return the line that says what is told by a threshold, and by which; none where the largest logit wins."""
    if contract.threshold is None:
        return []
    if contract.multi_label:
        return [f"  each class with a sigmoid of its own, above {contract.threshold:g}"]
    background, name = contract.classes
    origin = source or "the default; --threshold sets another"
    return [f"  one output with a sigmoid: {background}, {name} above {contract.threshold:g} ({origin})"]


def _shrunk(before: int, after: int) -> str:
    return f"{before}" if before == after else f"{before} -> {after}"


if __name__ == "__main__":
    sys.exit(command())
