"""Reading trained SegFormer, SegFormer++ and EDAFormer checkpoints in the styles in which people have them."""

from __future__ import annotations

from sfpp.export.checkpoints.checkpoint import Checkpoint, read_checkpoint

__all__ = ["Checkpoint", "read_checkpoint"]
