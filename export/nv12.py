"""From NV12 to color inside a graph: OpenCV's fixed-point arithmetic, in int32 and so to the bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sfpp.runtime.contract import InputSpec
from sfpp.runtime.pixels.nv12 import BITS, FIXED_POINT, LEAST_LUMA

# A sum of 30 bits is computed as two of 21 at most: OpenVINO divides int32 as float32, which is exact up to 24 bits.
_LOW_BITS = 10


class ColorFromNv12(nn.Module):
    """What :func:`sfpp.runtime.pixels.nv12.bgr_from_nv12` computes, to the bit, for the input of a graph.

    Args:
        spec: height, width, matrix and color order.
    """

    u_columns: Tensor
    v_columns: Tensor

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        assert spec.matrix is not None, "a contract with NV12 has a matrix"
        self._size_hw = spec.size_hw
        numbers = FIXED_POINT[spec.matrix]
        # As buffers, since of a trace only they have values.
        self.register_buffer("u_columns", torch.arange(spec.width) // 2 * 2, persistent=False)
        self.register_buffer("v_columns", torch.arange(spec.width) // 2 * 2 + 1, persistent=False)
        take: Callable[[int], int]
        for part, take in (
            ("high", lambda number: number >> _LOW_BITS),
            ("low", lambda number: number & ((1 << _LOW_BITS) - 1)),
        ):
            self.register_buffer(f"{part}_luma", torch.tensor(take(numbers.luma), dtype=torch.int32), persistent=False)
            for name in ("u", "v", "constant"):
                by_channel = _channels([take(each) for each in getattr(numbers, name)], spec)
                self.register_buffer(f"{part}_{name}", by_channel, persistent=False)

    def forward(self, planes: Tensor) -> Tensor:
        """Return (batch, 3, height, width) float32 of 0..255 in the spec's color order.

        Args:
            planes: (batch, height * 3 / 2, width) float32 of 0..255, luma above U and V in turn.
        """
        height, width = self._size_hw
        luma = planes[:, :height].clamp(min=LEAST_LUMA).to(torch.int32).reshape(-1, 1, height // 2, 2, width)
        chroma = planes[:, height:].to(torch.int32)
        # By column, where each is needed twice: one node, and half the time of repeating them later.
        u, v = (
            torch.index_select(chroma, 2, columns).reshape(-1, 1, height // 2, 1, width)
            for columns in (self.u_columns, self.v_columns)
        )
        high, low = (self._part(part, luma, u, v) for part in ("high", "low"))
        # Shifts become divisions, which cut towards zero: only what is cut to zero anyway differs.
        values = (high + (low >> _LOW_BITS)) >> (BITS - _LOW_BITS)
        return values.reshape(-1, 3, height, width).to(torch.float32).clamp(0, 255)

    def _part(self, part: str, luma: Tensor, u: Tensor, v: Tensor) -> Tensor:
        of_luma, of_u, of_v, constant = (getattr(self, f"{part}_{name}") for name in ("luma", "u", "v", "constant"))
        total: Tensor = luma * of_luma + (u * of_u + v * of_v + constant)
        return total


def _channels(values: Sequence[int], spec: InputSpec) -> Tensor:
    """Return numbers of red, green and blue, (1, 3, 1, 1, 1) int32, in the spec's color order."""
    ordered = values if spec.color_order == "RGB" else values[::-1]
    return torch.tensor(ordered, dtype=torch.int32).reshape(1, 3, 1, 1, 1)
