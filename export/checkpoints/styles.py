"""How each family of checkpoints spells the network's tensors.

``styles.json`` has a table for each style, from a canonical module to the stored one, where {i} is the stage from 0,
{n} the stage from 1, {r} the stage from the last one, {j} the block from 0 and {nn} EDAFormer's name of a decoder
block: 4, 44 and 444 are the three blocks on stage 4. Modules are written as the prefix that they share and the rest.
Where rows of several stored tensors make up one of ours these stand one after the other, and ``[0/3]`` is the first
third of a tensor's rows. Encoder names are relative to the style's encoder prefix, which a file may lack, all others to
the head's prefix. A style that is ``like`` another one has its facts and its table except for what it says itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sfpp.runtime.contract import Task

PROJECTION = "encoder.stages.{i}.patch_embed.projection"
BLOCK = "encoder.stages.{i}.blocks.{j}."
DECODER_BLOCK = "head.stages.{i}.{j}."
FUSION = "head.fusion.conv"
FUSION_NORM = "head.fusion.bn"
CLASSIFIER = "head.classifier"
STAGES = 4

StyleName = Literal["official", "tao", "smp", "edaformer", "mmseg", "mmpose", "transformers"]
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
        return f"{self.module.format(i=i, n=i + 1, r=STAGES - 1 - i, j=j, nn=repeated)}{dot}{param}"


@dataclass(frozen=True)
class Style:
    """One way of storing the network.

    ``marker`` matches the keys of an encoder in this style; a head in it has keys that begin with one of
    ``head_prefixes`` and then ``head_start``. ``fused_last_first`` says that the fusion's input channels begin with the
    last stage. ``unused`` matches keys that the network never calls, and ``note`` says what is odd about the style.
    ``output_align_corners`` says how the library upsamples the logits to its input's size.
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
    output_align_corners: bool = False
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
    """A style with one file's prefixes: ``encoder`` and ``head``."""

    style: Style
    encoder: str
    head: str

    def parts(self, module: str) -> tuple[Part, ...]:
        """Return the stored parts whose rows, one after another, make up a canonical module's tensors."""
        prefix = self.encoder if module.startswith("encoder.") else self.head
        return tuple(Part(prefix + part.module, part.index, part.of) for part in self.style.table[module])

    def is_unused(self, key: str) -> bool:
        """Tell whether a stored key belongs to training and not to the network."""
        return re.match(f"({_TRAINING_ONLY})|({self.style.unused})", key) is not None


@dataclass(frozen=True)
class Found:
    """A network among the keys of a file: ``root`` stands before all of its keys.

    ``keys`` are one of its encoder and one of its head, or of its encoder alone where it has no head that sfpp knows.
    """

    root: str
    spelling: Spelling
    keys: tuple[str, ...]

    @property
    def has_head(self) -> bool:
        """Whether it is whole."""
        return len(self.keys) > 1


def find_networks(keys: Collection[str]) -> list[Found]:
    """Return the networks whose encoders are among the keys, each in the first style that has its head too."""
    found: dict[str, Found] = {}
    for style in STYLES.values():
        # Lazy, so that the encoder's prefix is not taken into the root.
        pattern = re.compile(rf"((?:.*?\.)??)({re.escape(style.encoder_prefix)})?(?:{style.marker})")
        places = {(match[1], match[2] or ""): key for key in keys if (match := pattern.match(key))}
        for (root, encoder), key in places.items():
            place = root + encoder
            if place not in found or not found[place].has_head:
                head, head_key = _head(style, root, keys)
                if head_key or place not in found:
                    spelling = Spelling(style, encoder, head)
                    found[place] = Found(root, spelling, (key, head_key) if head_key else (key,))
    return list(found.values())


def _head(style: Style, root: str, keys: Collection[str]) -> tuple[str, str]:
    """Return the head's prefix and one of its keys, or the first prefix of the style and nothing."""
    for head in style.head_prefixes:
        if key := next((key for key in keys if key.startswith(root + head + style.head_start)), ""):
            return head, key
    return style.head_prefixes[0], ""


# What is trained on the same encoders, by keys that nothing else has; the first that fits is meant.
_OTHER_HEADS = {
    "PEFT's adapters": r"\.lora_|\.base_layer\.",
    "DAFormer": r"decode_head\.(embed_layers|fuse_layer)\.",
    "UPerNet": r"(decode_head|decoder)\.(lateral_convs|fpn_convs|fpn_bottleneck|fpn_lateral_blocks|psp\.)",
    "Mask2Former or MaskFormer": r"decode_head\.(pixel_decoder|transformer_decoder|query_)|mask_embed",
    "PSPNet": r"decode_head\.psp_modules\.",
    "DeepLabV3": r"(decode_head|decoder)\.(aspp|image_pool|c1_bottleneck|sep_bottleneck)",
    "SegNeXt (Hamburger)": r"decode_head\.(hamburger|ham|squeeze)\.",
    "FCN": r"decode_head\.(convs\.0\.conv|conv_cat)\.",
    "U-Net": r"decoder\.(blocks\.(x_)?\d|center)",
    "FPN": r"(decode_head|decoder)\.(scale_heads|seg_blocks|p[2-5])\b",
    "GLPN (depth)": r"(head\.head|decoder\.stages|decoder\.fusion)\.",
    "ImageNet classification": r"(head|classifier)\.(weight|bias)$",
}


def without_head(found: Found, keys: Collection[str], name: str) -> str:
    """Say what an encoder has in place of the head that goes with it; ``name`` stands for the file."""
    style, root = found.spelling.style, found.root
    place = root + found.spelling.encoder
    heads = tuple(f"{root}{head}" for head in ("head.", "decode_head."))
    rest = sorted(key for key in keys if key.startswith(heads) or not key.startswith(place or root + "\0"))
    if not place:  # the encoder has no prefix of its own
        rest = [key for key in rest if not re.match(r"(patch_embed|block|norm)\d|layers\.|encoder\.|stages\.", key)]
    other = next(((head, key) for head, sign in _OTHER_HEADS.items() for key in rest if re.search(sign, key)), None)
    shown = ([other[1]] if other else []) + [key for key in rest if other is None or key != other[1]]
    instead = f"; found instead {', '.join(shown[:3])}" if shown else ""
    kind = f", but that of {other[0]}, and sfpp reads SegFormer's own alone" if other else ""
    return (
        f"{name} holds an encoder in the {style.title} style without a segmentation head (no key begins with "
        f"{root}{style.head_prefixes[0]}{style.head_start}{instead}){kind}: give a checkpoint that was trained for "
        "segmentation or pose"
    )
