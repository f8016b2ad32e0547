"""The command that makes a file like one that is there."""

from __future__ import annotations

import shlex

from sfpp.runtime.contract import ModelContract


def export_command(contract: ModelContract, *more: str, weights: str) -> str:
    """Return the line with `sfpp-export` that makes a file of this kind anew, quoted for a shell.

    Args:
        contract: of the file; it may come from anybody.
        more: further options, such as ``--target tensorrt``.
        weights: the checkpoint as it is to be shown.
    """
    isr = contract.recipe[0].get("isr") if contract.recipe else None
    options = [f"--isr {shlex.quote(str(isr))}" if isr else f"--variant {shlex.quote(contract.variant)}"]
    options += [f"--matching {contract.matching}"] * (contract.matching != "exact")
    options += [f"--share-matching {contract.share_matching or 'all'}"] * (contract.share_matching != 1)
    size = f"--res {contract.input.width}x{contract.input.height}"
    return " ".join(["sfpp-export --weights", weights, *options, *more, size])
