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
    """A style with one file's prefixes: ``root`` before everything (``module.``), ``encoder`` and ``head`` after it."""

    style: Style
    root: str
    encoder: str
    head: str

    def parts(self, module: str) -> tuple[Part, ...]:
        """Return the stored parts whose rows, one after another, make up a canonical module's tensors."""
        prefix = self.root + (self.encoder if module.startswith("encoder.") else self.head)
        return tuple(Part(prefix + part.module, part.index, part.of) for part in self.style.table[module])

    def is_unused(self, key: str) -> bool:
        """Tell whether a stored key belongs to training and not to the network."""
        return re.match(f"({_TRAINING_ONLY})|({self.style.unused})", key.removeprefix(self.root)) is not None


def recognize(keys: Collection[str], name: str) -> Spelling:
    """Tell from its keys how a checkpoint is spelled; ``name`` stands for the file in messages.

    Raises:
        CheckpointError: no style that sfpp knows, another network, or an encoder without the head that goes with it.
    """
    found = _encoder(keys)
    if found is None:
        raise CheckpointError(
            f"{name} is not a SegFormer or EDAFormer in a known style: it has keys such as "
            f"{', '.join(sorted(keys)[:3])}. Expected keys like backbone.patch_embed1.proj.weight (official SegFormer, "
            "EDAFormer), backbone.layers.0.0.projection.weight (MMSegmentation, MMPose) or "
            "segformer.encoder.patch_embeddings.0.proj.weight (Transformers)"
        )
    encoder_style, root, encoder = found
    # Segmentation and pose have the same encoder: the head tells them apart.
    for style in (style for style in STYLES if style.marker == encoder_style.marker):
        for head in style.head_prefixes:
            if any(key.startswith(root + head + style.head_start) for key in keys):
                return Spelling(style, root, encoder, head)
    raise CheckpointError(_without_head(encoder_style, root, encoder, keys, name))


def _encoder(keys: Collection[str]) -> tuple[Style, str, str] | None:
    """Return the first style whose encoder is among the keys, with the prefixes of the file and of the encoder."""
    for style in STYLES:
        # Lazy, so that the encoder's prefix is not taken into the root.
        pattern = re.compile(rf"(.*?)({re.escape(style.encoder_prefix)})?(?:{style.marker})")
        for key in keys:
            if found := pattern.match(key):
                return style, found[1], found[2] or ""
    return None


def _without_head(style: Style, root: str, encoder: str, keys: Collection[str], name: str) -> str:
    heads = tuple(f"{root}{head}" for head in ("head.", "decode_head."))
    rest = [key for key in keys if key.startswith(heads) or not key.startswith(root + encoder)]
    found = f"; found instead {', '.join(sorted(rest)[:3])}" if rest else ""
    return (
        f"{name} holds an encoder in the {style.title} style without a segmentation head (no key begins with "
        f"{root}{style.head_prefixes[0]}{style.head_start}{found}): give a checkpoint that was trained for "
        "segmentation or pose"
    )
