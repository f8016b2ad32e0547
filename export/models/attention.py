"""Scaled dot-product attention as one traceable operation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.library.custom_op("sfpp::attend", mutates_args=())
def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float) -> Tensor:
    """Return softmax(scale * q k^T) v for each head.

    Args:
        query: (batch, N, channels); the heads lie side by side in the channels.
        key: (batch, M, channels).
        value: (batch, M, channels).
        heads: divides the channels.
        scale: usually 1 / sqrt(channels / heads).

    Returns:
        (batch, N, channels). The score matrix is never held as a whole.
    """
    mixed = F.scaled_dot_product_attention(
        _split_heads(query, heads), _split_heads(key, heads), _split_heads(value, heads), scale=scale
    )
    return mixed.transpose(1, 2).reshape(query.shape)


@attend.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float) -> Tensor:
    return torch.empty_like(query)


def _split_heads(tensor: Tensor, heads: int) -> Tensor:
    batch, tokens, channels = tensor.shape
    return tensor.reshape(batch, tokens, heads, channels // heads).transpose(1, 2)
