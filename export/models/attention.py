"""Scaled dot-product attention as one traceable operation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(
    query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float, log_size: Tensor | None = None
) -> Tensor:
    """Return softmax(scale * q k^T + log_size) v for each head.

    Args:
        query: (batch, N, channels); the heads lie side by side in the channels.
        key: (batch, M, channels).
        value: (batch, M, channels).
        heads: divides the channels.
        scale: usually 1 / sqrt(channels / heads).
        log_size: (batch or 1, M), the log of how many tokens each key stands for; None lets all weigh alike.

    Returns:
        (batch, N, channels). The score matrix is never held as a whole.
    """
    attended: Tensor = (
        attend_alike(query, key, value, heads, scale)
        if log_size is None
        else attend_sized(query, key, value, log_size, heads, scale)
    )
    return attended


@torch.library.custom_op("sfpp::attend", mutates_args=())
def attend_alike(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float) -> Tensor:
    """Return :func:`attend` with keys that all weigh alike."""
    return _attended(query, key, value, heads, scale, None)


@attend_alike.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float) -> Tensor:
    return torch.empty_like(query)


@torch.library.custom_op("sfpp::attend_sized", mutates_args=())
def attend_sized(query: Tensor, key: Tensor, value: Tensor, log_size: Tensor, heads: int, scale: float) -> Tensor:
    """Return :func:`attend` with keys that weigh by their sizes."""
    return _attended(query, key, value, heads, scale, log_size[:, None, None, :])


@attend_sized.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, log_size: Tensor, heads: int, scale: float) -> Tensor:
    return torch.empty_like(query)


def _attended(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float, added: Tensor | None) -> Tensor:
    mixed = F.scaled_dot_product_attention(
        _split_heads(query, heads), _split_heads(key, heads), _split_heads(value, heads), attn_mask=added, scale=scale
    )
    return mixed.transpose(1, 2).reshape(query.shape)


def _split_heads(tensor: Tensor, heads: int) -> Tensor:
    batch, tokens, channels = tensor.shape
    return tensor.reshape(batch, tokens, heads, channels // heads).transpose(1, 2)
