"""Telling from its keys in which style, and with which prefixes, a checkpoint is spelled."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from sfpp.export.checkpoints.styles import STYLES, Part, Style
from sfpp.runtime.errors import CheckpointError

_TRAINING_ONLY = r".*num_batches_tracked$|auxiliary_head\.|data_preprocessor\."


@dataclass(frozen=True)
class Spelling:
    """A style with the prefixes that one file has: ``root`` before everything (``module.``), ``encoder`` after it."""

    style: Style
    root: str
    encoder: str

    def parts(self, module: str) -> tuple[Part, ...]:
        """Return the stored parts whose rows, one after another, make up a canonical module's tensors."""
        prefix = self.root + (self.encoder if module.startswith("encoder.") else "decode_head.")
        return tuple(Part(prefix + part.module, part.index, part.of) for part in self.style.table[module])

    def is_unused(self, key: str) -> bool:
        """Tell whether a stored key belongs to training and not to the network."""
        return re.match(f"({_TRAINING_ONLY})|({self.style.unused})", key.removeprefix(self.root)) is not None


def recognize(keys: Collection[str], name: str) -> Spelling:
    """Tell from its keys how a checkpoint is spelled; ``name`` stands for the file in messages.

    Raises:
        CheckpointError: no style that sfpp knows, another network, or an encoder without a segmentation head.
    """
    spelling = _spelling(keys)
    if spelling is None:
        raise CheckpointError(
            f"{name} is not a SegFormer in a known style: it has keys such as "
            f"{', '.join(sorted(keys)[:3])}. Expected keys like backbone.patch_embed1.proj.weight (official), "
            "backbone.layers.0.0.projection.weight (MMSegmentation) or "
            "segformer.encoder.patch_embeddings.0.proj.weight (Transformers)"
        )
    head = f"{spelling.root}decode_head."
    if any(key.startswith(f"{head}attn") for key in keys):
        raise CheckpointError(f"{name} is an EDAFormer, expected a SegFormer or SegFormer++ checkpoint")
    if not any(key.startswith(head) for key in keys):
        raise CheckpointError(_without_head(spelling, keys, name))
    return spelling


def _spelling(keys: Collection[str]) -> Spelling | None:
    for style in STYLES:
        # Lazy, so that the encoder's prefix is not taken into the root.
        pattern = re.compile(rf"(.*?)({re.escape(style.encoder_prefix)})?(?:{style.marker})")
        for key in keys:
            if found := pattern.match(key):
                return Spelling(style, found[1], found[2] or "")
    return None


def _without_head(spelling: Spelling, keys: Collection[str], name: str) -> str:
    encoder = spelling.root + spelling.encoder
    rest = [key for key in keys if key.startswith(f"{spelling.root}head.") or not key.startswith(encoder)]
    found = f"; found instead {', '.join(sorted(rest)[:3])}" if rest else ""
    return (
        f"{name} holds an encoder in the {spelling.style.title} style without a segmentation head (no key begins with "
        f"{spelling.root}decode_head.{found}): give a checkpoint that was trained for segmentation"
    )
