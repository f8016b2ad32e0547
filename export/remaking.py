"""The command that makes a file like one that is there."""

from __future__ import annotations

import shlex

from sfpp.export.catalog import VARIANTS
from sfpp.runtime.contract import ModelContract


def export_command(contract: ModelContract, *more: str, weights: str) -> str:
    """Return the line with `sfpp-export` that makes a file of this kind anew, quoted for a shell.

    Args:
        contract: of the file; it may come from anybody.
        more: further options, such as ``--target tensorrt``, which take the place of the file's own.
        weights: the checkpoint as it is to be shown.
    """
    isr = contract.recipe[0].get("isr") if contract.recipe else None
    # A variant without a name of ours is a recipe file, which the contract calls by its stem.
    variant = contract.variant if contract.variant in VARIANTS else f"{contract.variant}.json"
    options = [f"--isr {shlex.quote(str(isr))}" if isr else f"--variant {shlex.quote(variant)}"]
    options += [f"--matching {contract.matching}"] * (contract.matching != "exact")
    options += [f"--share-matching {contract.share_matching or 'all'}"] * (contract.share_matching != 1)
    options += ["--output labels"] * (contract.outputs[0].kind == "labels")
    options += ["--input float32"] * (contract.input.dtype == "float32")
    options += [f"--batch {contract.input.batch}"] * (contract.input.batch != 1)
    options += [f"--resize {contract.input.resize}"] * (contract.input.resize != "letterbox")
    stated = " ".join(more)
    if contract.target != "portable" and "--target" not in stated:
        options.append(f"--target {shlex.quote(contract.target)}")
    if contract.opset != 17 and "--opset" not in stated:
        options.append(f"--opset {contract.opset}")
    size = f"--res {contract.input.width}x{contract.input.height}"
    return " ".join(["sfpp-export --weights", weights, *options, *more, size])
