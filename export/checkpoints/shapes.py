"""The sizes that a checkpoint's own tensors tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from sfpp.export.checkpoints.layout import BLOCK, PROJECTION
from sfpp.export.checkpoints.spelling import Spelling
from sfpp.runtime.errors import CheckpointError

STAGES = 4


@dataclass(frozen=True)
class StoredShapes:
    """Reads sizes off the tensors of one file; ``name`` stands for it in messages."""

    name: str
    tensors: Mapping[str, Tensor] = field(repr=False)
    spelling: Spelling

    def rows(self, module: str, i: int = 0, j: int = 0) -> int:
        """Return the first dimension of a module's weight: its output channels.

        Raises:
            CheckpointError: the tensor is missing, or has no rows.
        """
        (part,) = self.spelling.parts(module)
        key = part.key("weight", i, j)
        if key not in self.tensors or self.tensors[key].ndim == 0 or len(self.tensors[key]) == 0:
            found = "has no rows" if key in self.tensors else "is missing"
            raise CheckpointError(
                f"{self.name}: {key} {found}, without which the size cannot be told "
                f"({self.spelling.style.title} style); give the whole state dictionary"
            )
        return len(self.tensors[key])

    def channels(self) -> tuple[int, ...]:
        """Return the channels of every encoder stage.

        Raises:
            CheckpointError: a stage's patch embedding is missing.
        """
        return tuple(self.rows(PROJECTION, i) for i in range(STAGES))

    def depths(self) -> tuple[int, ...]:
        """Count each stage's blocks by the highest index among the keys, so that a hole shows as missing keys."""
        (part,) = self.spelling.parts(BLOCK + "norm1")
        before_index = part.module.split("{j}")[0]
        depths = []
        for i in range(STAGES):
            prefix = before_index.format(i=i, n=i + 1)
            indices = {key.removeprefix(prefix).split(".")[0] for key in self.tensors if key.startswith(prefix)}
            # What is longer than an index is an unexpected key.
            numbers = [int(index) for index in indices if index.isdecimal() and len(index) < 10]
            depths.append(max(numbers, default=-1) + 1)
        return tuple(depths)
