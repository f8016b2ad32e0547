"""One trained network in the names of every library: the demonstration model's encoder, with two heads.

MMSegmentation's head comes with the demonstration model. The official one, which other libraries share, has no ReLU
after its projections: it is fitted by least squares to what the other feeds its fusion with, so that its labels mean
something too. A table that named or ordered things wrongly would make a library's own answer worthless.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sfpp.export.checkpoints import read_checkpoint
from sfpp.export.demo import demo_checkpoint
from sfpp.export.models.recipe import NO_MERGING
from sfpp.export.models.segformer import SegFormer
from sfpp.runtime.pixels.pictures import read_image

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
State = dict[str, Tensor]
_IN_ENCODER = (
    (r"layers\.(\d)\.0\.projection", r"patch_embed{}.proj"),
    (r"layers\.(\d)\.0\.norm", r"patch_embed{}.norm"),
    (r"layers\.(\d)\.2", r"norm{}"),
    (r"layers\.(\d)\.1\.(\d+)\.(norm\d|attn\.norm|attn\.sr)", r"block{}.{}.{}"),
    (r"layers\.(\d)\.1\.(\d+)\.attn\.attn\.out_proj", r"block{}.{}.attn.proj"),
    (r"layers\.(\d)\.1\.(\d+)\.ffn\.layers\.0", r"block{}.{}.mlp.fc1"),
    (r"layers\.(\d)\.1\.(\d+)\.ffn\.layers\.1", r"block{}.{}.mlp.dwconv.dwconv"),
    (r"layers\.(\d)\.1\.(\d+)\.ffn\.layers\.4", r"block{}.{}.mlp.fc2"),
)
_IN_TRANSFORMERS = (
    (r"patch_embed(\d)\.proj", "patch_embeddings.{}.proj"),
    (r"patch_embed(\d)\.norm", "patch_embeddings.{}.layer_norm"),
    (r"norm(\d)", "layer_norm.{}"),
    (r"block(\d)\.(\d+)\.norm(\d)", "block.{}.{}.layer_norm_{}"),
    (r"block(\d)\.(\d+)\.attn\.q", "block.{}.{}.attention.self.query"),
    (r"block(\d)\.(\d+)\.attn\.sr", "block.{}.{}.attention.self.sr"),
    (r"block(\d)\.(\d+)\.attn\.norm", "block.{}.{}.attention.self.layer_norm"),
    (r"block(\d)\.(\d+)\.attn\.proj", "block.{}.{}.attention.output.dense"),
    (r"block(\d)\.(\d+)\.mlp\.fc(\d)", "block.{}.{}.mlp.dense{}"),
    (r"block(\d)\.(\d+)\.(mlp\.dwconv\.dwconv)", "block.{}.{}.{}"),
)


def mmsegmentation() -> State:
    """Return the demonstration model as MMSegmentation names it."""
    from safetensors.torch import load_file

    return {key: value.float() for key, value in load_file(demo_checkpoint()).items()}


def official(pictures: Sequence[object]) -> State:
    """Return the same encoder with an official head that is fitted to the given pictures, as its authors name it."""
    stored = mmsegmentation()
    state: State = {}
    for key, value in stored.items():
        module, param = key.removeprefix("backbone.").rsplit(".", 1)
        if match := re.fullmatch(r"layers\.(\d)\.1\.(\d+)\.attn\.attn\.in_proj_(\w+)", f"{module}.{param}"):
            block = f"backbone.block{int(match[1]) + 1}.{match[2]}.attn"
            rows = len(value) // 3
            state[f"{block}.q.{match[3]}"], state[f"{block}.kv.{match[3]}"] = value[:rows], value[rows:]
        elif name := _renamed(module, _IN_ENCODER, first_from=1):
            is_linear = "mlp.fc" in name and value.ndim == 4
            state[f"backbone.{name}.{param}"] = value.flatten(1) if is_linear else value
    return state | _fitted_head(stored, pictures)


def transformers(state: State) -> State:
    """Return an official state in the names of Transformers 4, which 5 reads too."""
    head = {"linear_pred": "classifier", "linear_fuse.conv": "linear_fuse", "linear_fuse.bn": "batch_norm"}
    named: State = {}
    for key, value in state.items():
        side, module, param = re.fullmatch(r"(\w+)\.(.+)\.(\w+)", key).groups()
        if side == "decode_head":
            of = re.sub(r"linear_c(\d)", lambda match: f"linear_c.{int(match[1]) - 1}", head.get(module, module))
            named[f"decode_head.{of}.{param}"] = value
        elif match := re.fullmatch(r"block(\d)\.(\d+)\.attn\.kv", module):
            inside = f"segformer.encoder.block.{int(match[1]) - 1}.{match[2]}.attention.self"
            named[f"{inside}.key.{param}"], named[f"{inside}.value.{param}"] = value.chunk(2)
        else:
            named[f"segformer.encoder.{_renamed(module, _IN_TRANSFORMERS, first_from=-1)}.{param}"] = value
    return named


def smp(state: State) -> State:
    """Return an official state in the names of segmentation_models_pytorch, whose first stage is the deepest."""
    rules = (
        (r"backbone\.", "encoder."),
        (r"decode_head\.linear_c(\d)\.proj", lambda match: f"decoder.mlp_stage.{4 - int(match[1])}.linear"),
        (r"decode_head\.linear_fuse\.conv", "decoder.fuse_stage.0"),
        (r"decode_head\.linear_fuse\.bn", "decoder.fuse_stage.1"),
        (r"decode_head\.linear_pred", "segmentation_head.0"),
    )
    return _replaced(state, rules)


def tao(state: State) -> State:
    """Return an official state in the names of TAO's newer networks, whose fusion has a bias of its own."""
    rules = (
        (r"^", "model."),
        (r"\.decode_head\.", ".decoder."),
        (r"linear_fuse\.conv", "linear_fuse.0"),
        (r"linear_fuse\.bn", "linear_fuse.1"),
    )
    named = _replaced(state, rules)
    bias = torch.linspace(-1, 1, len(named["model.decoder.linear_fuse.1.bias"]))
    named["model.decoder.linear_fuse.0.bias"] = bias
    named["model.decoder.linear_fuse.1.running_mean"] = named["model.decoder.linear_fuse.1.running_mean"] + bias
    return named


def with_normalization(state: State, mean: Sequence[float], std: Sequence[float], *, bgr: bool = False) -> State:
    """Return a state that takes pixels normalized in another way: its first convolution makes up for it.

    Args:
        state: any library's, for ImageNet's mean and standard deviation of RGB.
        mean: of each channel in its new order, 0..255.
        std: the same.
        bgr: the new order of the channels.
    """
    name = next(key for key, value in state.items() if value.ndim == 4 and value.shape[1] == 3)
    weight, channels = state[name], [2, 1, 0] if bgr else [0, 1, 2]
    old_mean, old_std = torch.tensor(MEAN)[channels], torch.tensor(STD)[channels]
    ordered = weight[:, channels]
    moved = (torch.tensor(mean) - old_mean) / old_std
    bias = state[name.replace("weight", "bias")] + (ordered * moved[:, None, None]).sum((1, 2, 3))
    scaled = ordered * (torch.tensor(std) / old_std)[:, None, None]
    return state | {name: scaled.contiguous(), name.replace("weight", "bias"): bias}


def of_one_class(state: State, index: int, threshold: float) -> State:
    """Return a state with one output, for a class against the mean of the others, balanced about the threshold."""
    changed = {}
    for name in (key for key in state if re.search(r"(linear_pred|classifier|conv_seg|segmentation_head\.0)\.", key)):
        others = torch.cat([state[name][:index], state[name][index + 1 :]])
        changed[name] = state[name][index : index + 1] - others.mean(0, keepdim=True)
        if name.endswith("bias"):
            changed[name] += float(np.log(threshold / (1 - threshold)))
    return state | changed


def _renamed(module: str, rules: Sequence[tuple[str, str]], *, first_from: int) -> str | None:
    for pattern, name in rules:
        if match := re.fullmatch(pattern, module):
            stage, *rest = match.groups()
            return name.format(int(stage) + first_from, *rest)
    return None


def _replaced(state: State, rules: Sequence[tuple[str, object]]) -> State:
    named = {}
    for key, value in state.items():
        for pattern, new in rules:
            key = re.sub(pattern, new, key)
        named[key] = value
    return named


@torch.inference_mode()
def _fitted_head(stored: State, pictures: Sequence[object]) -> State:
    """Fit four projections to the fusion's input: each then turned, and the fusion turned back, as training would."""
    inputs, wanted = _features(pictures)
    full = torch.cat([inputs, torch.ones(len(inputs), 1)], 1).double()
    products = full.T @ full
    # Without this, features that are nearly a sum of others would get weights of thousands, and rounding with them.
    products += 0.01 * products.diagonal().mean() * torch.eye(len(products))
    solved = torch.linalg.solve(products, full.T @ wanted.double()).float()
    generator = torch.Generator().manual_seed(0)
    state: State = {}
    turned = []
    for number, rows in enumerate(solved[:-1].split([32, 64, 160, 256]), 1):
        turn = torch.linalg.qr(torch.randn(256, 256, generator=generator)).Q
        state[f"decode_head.linear_c{number}.proj.weight"] = (rows @ turn).T.contiguous()
        state[f"decode_head.linear_c{number}.proj.bias"] = 0.25 * solved[-1] @ turn
        turned.append(turn)
    # The official fusion begins with the last stage.
    fusion = torch.cat(turned[::-1], 1)[:, :, None, None]
    state["decode_head.linear_fuse.conv.weight"] = fusion
    for param in ("weight", "bias", "running_mean", "running_var"):
        state[f"decode_head.linear_fuse.bn.{param}"] = stored[f"decode_head.fusion_conv.bn.{param}"]
    for param in ("weight", "bias"):
        state[f"decode_head.linear_pred.{param}"] = stored[f"decode_head.conv_seg.{param}"]
    return state


def _features(pictures: Sequence[object]) -> tuple[Tensor, Tensor]:
    """Return (pixels, 512) features of all stages on the first one's grid, and (pixels, 256) inputs of the fusion."""
    checkpoint = read_checkpoint(demo_checkpoint())
    network = SegFormer(checkpoint.config).eval()
    network.load_state_dict(checkpoint.state)
    fusion = network.head.fusion.conv.weight.flatten(1)
    inputs, wanted = [], []
    for picture in pictures:
        image = torch.from_numpy(read_image(picture)[..., ::-1].astype(np.float32))
        normalized = ((image - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1)[None]
        stages = network.encoder(normalized, NO_MERGING)
        grid = stages[0].shape[2:]
        of = [network.head.projections[i](stage) for i, stage in enumerate(stages)]
        for maps, into in ((stages, inputs), (of, wanted)):
            up = [F.interpolate(each, grid, mode="bilinear", align_corners=False) for each in maps]
            into.append(torch.cat(up, 1)[0].flatten(1).T)
    return torch.cat(inputs), torch.cat(wanted) @ fusion.T
