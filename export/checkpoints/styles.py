"""How each family of checkpoints spells the network's tensors.

``styles.json`` has a table for each style, from a canonical module to the stored one, where {i} is the stage from 0,
{n} the stage from 1, {j} the block from 0 and {nn} EDAFormer's name of a decoder block: 4, 44 and 444 are the three
blocks on stage 4. Modules are written as the prefix that they share and the rest. Where rows of several stored tensors
make up one of ours these stand one after the other, and ``[0/3]`` is the first third of a tensor's rows. Encoder names
are relative to the style's encoder prefix, which a file may lack, all others to the head's prefix. A style that is
``like`` another one has its facts and its table except for what it says itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sfpp.runtime.contract import Task
from sfpp.runtime.errors import CheckpointError

PROJECTION = "encoder.stages.{i}.patch_embed.projection"
BLOCK = "encoder.stages.{i}.blocks.{j}."
DECODER_BLOCK = "head.stages.{i}.{j}."
FUSION = "head.fusion.conv"
CLASSIFIER = "head.classifier"

StyleName = Literal["official", "edaformer", "mmseg", "mmpose", "transformers"]
Family = Literal["segformer", "edaformer"]
_TRAINING_ONLY = r".*num_batches_tracked$|auxiliary_head\.|data_preprocessor\."


@dataclass(frozen=True)
class Part:
    """The ``index``-th of ``of`` equal blocks of rows of a stored tensor; the whole tensor by default."""

    module: str
    index: int = 0
    of: int = 1

    def key(self, param: str, i: int, j: int) -> str:
        """Return the stored key, still without the file's prefixes."""
        # MultiheadAttention has in_proj_weight where any other module has a dot.
        dot = "" if self.module.endswith("_") else "."
        # The first of EDAFormer's decoder levels is the encoder's second stage.
        repeated = str(i + 2) * (j + 1)
        return f"{self.module.format(i=i, n=i + 1, j=j, nn=repeated)}{dot}{param}"


@dataclass(frozen=True)
class Style:
    """One way of storing the network.

    ``marker`` matches the keys of an encoder in this style; a head in it has keys that begin with one of
    ``head_prefixes`` and then ``head_start``. ``fused_last_first`` says that the fusion's input channels begin with the
    last stage. ``unused`` matches keys that the network never calls, and ``note`` says what is odd about the style.
    """

    name: StyleName
    title: str
    head: Literal["official", "mmseg", "edaformer"]
    encoder_prefix: str
    marker: str
    block_eps: float
    embed_eps: float
    fused_last_first: bool
    table: Mapping[str, tuple[Part, ...]]
    task: Task = "segmentation"
    head_prefixes: tuple[str, ...] = ("decode_head.",)
    head_start: str = ""
    unused: str = r"$^"
    note: str = ""

    @property
    def family(self) -> Family:
        """Which of the architectures it is."""
        return "edaformer" if self.head == "edaformer" else "segformer"


def _parts(stored: str) -> tuple[Part, ...]:
    found = (re.fullmatch(r"(.+?)(?:\[(\d+)/(\d+)\])?", each) for each in stored.split())
    return tuple(Part(each[1], int(each[2] or 0), int(each[3] or 1)) for each in found if each is not None)


def _styles() -> dict[str, Style]:
    styles: dict[str, Style] = {}
    content = json.loads(Path(__file__).with_name("styles.json").read_text(encoding="utf-8"))
    for name, facts in content.items():
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()
        }
        own = {
            prefix + module: _parts(stored)
            for prefix, modules in given.pop("table").items()
            for module, stored in modules.items()
        }
        like = styles.get(given.pop("like", ""))
        if like is None:
            styles[name] = Style(**given, table=own)
        else:
            styles[name] = replace(like, **given, table={**like.table, **own})
    return styles


# By name; where one key fits several styles, the first one is meant.
STYLES = _styles()


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
    for style in (style for style in STYLES.values() if style.marker == encoder_style.marker):
        for head in style.head_prefixes:
            if any(key.startswith(root + head + style.head_start) for key in keys):
                return Spelling(style, root, encoder, head)
    raise CheckpointError(_without_head(encoder_style, root, encoder, keys, name))


def _encoder(keys: Collection[str]) -> tuple[Style, str, str] | None:
    """Return the first style whose encoder is among the keys, with the prefixes of the file and of the encoder."""
    for style in STYLES.values():
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
