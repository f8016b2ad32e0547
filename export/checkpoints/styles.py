"""How each family of checkpoints spells the network's tensors.

A table leads from a canonical module to the stored one, where {i} is the stage from 0, {n} the stage from 1, {j} the
block from 0 and {nn} EDAFormer's name of a decoder block: 4, 44 and 444 are the three blocks on stage 4. Encoder names
are relative to the style's encoder prefix, which a file may lack, all others to the head's prefix.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from sfpp.runtime.contract import Task
from sfpp.runtime.errors import CheckpointError

PROJECTION = "encoder.stages.{i}.patch_embed.projection"
BLOCK = "encoder.stages.{i}.blocks.{j}."
DECODER_BLOCK = "head.stages.{i}.{j}."
FUSION = "head.fusion.conv"
CLASSIFIER = "head.classifier"

StyleName = Literal["official", "edaformer", "mmseg", "mmpose", "transformers"]
Family = Literal["segformer", "edaformer"]
# The base class of mmseg 0.x makes a classifier that these heads never call.
_UNCALLED_CLASSIFIER = r"decode_head\.conv_seg\."
# What EDAFormer's authors took over from SegFormer's.
_OFFICIAL_STAGE = {
    PROJECTION: "patch_embed{n}.proj",
    "encoder.stages.{i}.patch_embed.norm": "patch_embed{n}.norm",
    "encoder.stages.{i}.norm": "norm{n}",
}
_OFFICIAL_BLOCK = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attention.output": "attn.proj",
    "ffn.expand": "mlp.fc1",
    "ffn.depthwise": "mlp.dwconv.dwconv",
    "ffn.contract": "mlp.fc2",
}
_OFFICIAL_FUSION = {FUSION: "linear_fuse.conv", "head.fusion.bn": "linear_fuse.bn", CLASSIFIER: "linear_pred"}
# Its attn.sr reduces nothing: it is the one projection that makes keys and values.
_EDAFORMER_BLOCK = {**_OFFICIAL_BLOCK, "attention.key_value": "attn.sr"}
# One matrix holds queries, keys and values, in this order.
_MMSEG_IN_PROJ = "layers.{i}.1.{j}.attn.attn.in_proj_"
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


Table = Mapping[str, tuple[Part, ...]]


@dataclass(frozen=True)
class Style:
    """One way of storing the network.

    ``marker`` matches the keys of an encoder in this style; a head in it has keys that begin with one of
    ``head_prefixes`` and then ``head_start``. ``fused_last_first`` says that the fusion's input channels begin with the
    last stage.
    """

    name: StyleName
    title: str
    head: Literal["official", "mmseg", "edaformer"]
    encoder_prefix: str
    marker: str
    block_eps: float
    embed_eps: float
    fused_last_first: bool
    table: Table
    task: Task = "segmentation"
    head_prefixes: tuple[str, ...] = ("decode_head.",)
    head_start: str = ""
    unused: str = r"$^"

    @property
    def family(self) -> Family:
        """Which of the architectures it is."""
        return "edaformer" if self.head == "edaformer" else "segformer"


def _table(names: Mapping[str, str | tuple[Part, ...]]) -> Table:
    return {module: (Part(name),) if isinstance(name, str) else name for module, name in names.items()}


def _blocks(canonical: str, stored: str, names: Mapping[str, str]) -> dict[str, str]:
    return {canonical + ours: stored + theirs for ours, theirs in names.items()}


OFFICIAL = Style(
    name="official",
    title="official SegFormer",
    head="official",
    encoder_prefix="backbone.",
    marker=r"block\d\.\d+\.attn\.(q|kv)\.",
    block_eps=1e-6,
    embed_eps=1e-5,
    fused_last_first=True,
    unused=_UNCALLED_CLASSIFIER,
    table=_table(
        {
            **_OFFICIAL_STAGE,
            **_blocks(BLOCK, "block{n}.{j}.", _OFFICIAL_BLOCK),
            BLOCK + "attention.query": "block{n}.{j}.attn.q",
            BLOCK + "attention.key_value": "block{n}.{j}.attn.kv",
            BLOCK + "attention.reduction": "block{n}.{j}.attn.sr",
            BLOCK + "attention.reduction_norm": "block{n}.{j}.attn.norm",
            "head.projections.{i}.conv": "linear_c{n}.proj",
            **_OFFICIAL_FUSION,
        }
    ),
)


EDAFORMER = Style(
    name="edaformer",
    title="EDAFormer",
    head="edaformer",
    encoder_prefix="backbone.",
    # These keys are the official SegFormer's too, which is asked about first.
    marker=r"patch_embed\d\.proj\.|block\d\.\d+\.attn\.",
    block_eps=1e-6,
    embed_eps=1e-5,
    fused_last_first=True,
    head_start="attn",
    unused=_UNCALLED_CLASSIFIER,
    table=_table(
        {
            **_OFFICIAL_STAGE,
            **_blocks(BLOCK, "block{n}.{j}.", _EDAFORMER_BLOCK),
            **_blocks(DECODER_BLOCK, "attn{nn}.", _EDAFORMER_BLOCK),
            DECODER_BLOCK + "attention.key_value_norm": "attn{nn}.attn.norm",
            **_OFFICIAL_FUSION,
        }
    ),
)


MMSEG = Style(
    name="mmseg",
    title="MMSegmentation",
    head="mmseg",
    encoder_prefix="backbone.",
    marker=r"layers\.\d\.(0\.projection|1\.\d+\.attn)\.",
    block_eps=1e-6,
    embed_eps=1e-6,
    fused_last_first=False,
    table=_table(
        {
            PROJECTION: "layers.{i}.0.projection",
            "encoder.stages.{i}.patch_embed.norm": "layers.{i}.0.norm",
            "encoder.stages.{i}.norm": "layers.{i}.2",
            BLOCK + "norm1": "layers.{i}.1.{j}.norm1",
            BLOCK + "norm2": "layers.{i}.1.{j}.norm2",
            BLOCK + "attention.query": (Part(_MMSEG_IN_PROJ, 0, 3),),
            BLOCK + "attention.key_value": (Part(_MMSEG_IN_PROJ, 1, 3), Part(_MMSEG_IN_PROJ, 2, 3)),
            BLOCK + "attention.output": "layers.{i}.1.{j}.attn.attn.out_proj",
            BLOCK + "attention.reduction": "layers.{i}.1.{j}.attn.sr",
            BLOCK + "attention.reduction_norm": "layers.{i}.1.{j}.attn.norm",
            BLOCK + "ffn.expand": "layers.{i}.1.{j}.ffn.layers.0",
            BLOCK + "ffn.depthwise": "layers.{i}.1.{j}.ffn.layers.1",
            BLOCK + "ffn.contract": "layers.{i}.1.{j}.ffn.layers.4",
            "head.projections.{i}.conv": "convs.{i}.conv",
            "head.projections.{i}.bn": "convs.{i}.bn",
            FUSION: "fusion_conv.conv",
            "head.fusion.bn": "fusion_conv.bn",
            CLASSIFIER: "conv_seg",
        }
    ),
)


MMPOSE = replace(
    MMSEG,
    name="mmpose",
    title="MMPose",
    task="pose",
    head_prefixes=("head.", "keypoint_head."),  # of MMPose 1.x and 0.x
    head_start="convs.",
    table={**MMSEG.table, CLASSIFIER: (Part("final_layer"),)},
)


# Each module's name in Transformers up to 4, which `save_pretrained` still writes, and in 5, whose `torch.save` writes
# it. Keys and values are two modules.
_TRANSFORMERS_NAMES: dict[str, tuple[str, str]] = {
    PROJECTION: ("encoder.patch_embeddings.{i}.proj", "stages.{i}.patch_embeddings.proj"),
    "encoder.stages.{i}.patch_embed.norm": (
        "encoder.patch_embeddings.{i}.layer_norm",
        "stages.{i}.patch_embeddings.layer_norm",
    ),
    "encoder.stages.{i}.norm": ("encoder.layer_norm.{i}", "stages.{i}.layer_norm"),
    "head.projections.{i}.conv": ("linear_c.{i}.proj", "linear_projections.{i}.proj"),
    FUSION: ("linear_fuse",) * 2,
    "head.fusion.bn": ("batch_norm",) * 2,
    CLASSIFIER: ("classifier",) * 2,
}
_TRANSFORMERS_BLOCK: dict[str, tuple[str, str]] = {
    "norm1": ("layer_norm_1", "layernorm_before"),
    "norm2": ("layer_norm_2", "layernorm_after"),
    "attention.query": ("attention.self.query", "attention.q_proj"),
    "attention.key_value": ("attention.self.key attention.self.value", "attention.k_proj attention.v_proj"),
    "attention.output": ("attention.output.dense", "attention.o_proj"),
    "attention.reduction": ("attention.self.sr", "attention.sequence_reduction.sequence_reduction"),
    "attention.reduction_norm": ("attention.self.layer_norm", "attention.sequence_reduction.layer_norm"),
    "ffn.expand": ("mlp.dense1", "mlp.fc1"),
    "ffn.depthwise": ("mlp.dwconv.dwconv", "mlp.dwconv.dwconv"),
    "ffn.contract": ("mlp.dense2", "mlp.fc2"),
}


def _transformers(age: int, *, block: str, marker: str) -> Style:
    names = {module: stored[age] for module, stored in _TRANSFORMERS_NAMES.items()}
    blocks = {
        BLOCK + module: tuple(Part(block + name) for name in stored[age].split())
        for module, stored in _TRANSFORMERS_BLOCK.items()
    }
    # The library writes layer_norm_eps into config.json but builds every LayerNorm with torch's default.
    return Style(
        name="transformers",
        title="Transformers",
        head="official",
        encoder_prefix="segformer.",
        marker=marker,
        block_eps=1e-5,
        embed_eps=1e-5,
        fused_last_first=True,
        table=_table({**names, **blocks}),
    )


TRANSFORMERS = _transformers(
    0, block="encoder.block.{i}.{j}.", marker=r"encoder\.(patch_embeddings\.\d|block\.\d\.\d+)\."
)
TRANSFORMERS_5 = _transformers(
    1, block="stages.{i}.blocks.{j}.", marker=r"stages\.\d\.(patch_embeddings|blocks\.\d+)\."
)


# Where one key fits several styles, the first one is meant.
STYLES = (OFFICIAL, EDAFORMER, MMSEG, MMPOSE, TRANSFORMERS, TRANSFORMERS_5)


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
