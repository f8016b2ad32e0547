"""What is compared, on which frames, and what runs it: the settings of one comparison."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sfpp.export.settings import PreparationOptions, check_threshold, resolution_from
from sfpp.runtime.backends import AUTO, PRECISIONS, Precision, backend_names
from sfpp.runtime.cli.console import positive_int
from sfpp.runtime.contract import ModelContract
from sfpp.runtime.errors import UsageError
from sfpp.runtime.options import option
from sfpp.tooling.label_rules import LabelRules

Modes = Literal["free", "pinned", "both"]


@dataclass(frozen=True)
class ParitySettings(PreparationOptions, LabelRules):
    """The settings of one comparison; paths may be given as text.

    Raises:
        UsageError: a value that cannot be meant.
    """

    model: Path = option("the file that sfpp-export or sfpp-calibrate wrote", flags=("model",), metavar="MODEL")
    weights: str | None = option(
        "the checkpoint that it was exported from (default: the demonstration model, if it was made from that)",
        default=None,
        metavar="PATH",
    )
    weights_key: str | None = option(
        "which network of a checkpoint that holds several (default: the one that the file was exported from)",
        default=None,
        metavar="NAME",
    )
    images: str | None = option(
        "an image, a folder of images or a video (default: an image that comes with sfpp); for pose models each image "
        "is taken for one person",
        default=None,
        metavar="PATH",
    )
    frames: int = option("how many frames, spread evenly over the source", default=8, type=positive_int, metavar="N")
    labels: Path | None = option(
        "label images named like the frames: accuracy of both sides", default=None, metavar="DIR"
    )
    backend: str = option(
        "what runs the file: onnxruntime, the strictest, another backend, or auto, as sfpp-run would choose: "
        f"{', '.join(backend_names())}",
        default="onnxruntime",
        choices=(AUTO, *backend_names()),
        metavar="NAME",
    )
    precision: Precision | None = option(
        "what the backend computes in (default: its own choice; OpenVINO takes bf16 where the CPU has it)",
        default=None,
        choices=PRECISIONS,
    )
    threads: int | None = option(
        "threads within an operator (default: all cores)", default=None, type=positive_int, metavar="N"
    )
    mode: Modes = option(
        "for variants that match tokens: each side matches by itself, PyTorch takes the graph's matching, or both",
        default="both",
        choices=get_args(Modes),
    )
    res: str | tuple[int, int] | None = option(
        "input size that the checkpoint is to be compared at, width x height (default: what the checkpoint says, else "
        "the file's)",
        default=None,
        metavar="WxH",
    )
    threshold: float | None = option(
        "probability over which a pixel is a class, of a network with a sigmoid that was exported with --threshold "
        "(default: what the checkpoint says, else what the file says)",
        default=None,
        type=float,
        metavar="P",
    )
    contract: ModelContract | Path | None = option(
        "metadata of a model that carries none, as JSON", default=None, metavar="FILE"
    )

    def __post_init__(self) -> None:
        PreparationOptions.__post_init__(self)
        LabelRules.__post_init__(self)
        object.__setattr__(self, "model", Path(self.model))
        for name in ("weights", "images"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else os.fspath(value))
        for name in ("labels", "contract"):
            value = getattr(self, name)
            object.__setattr__(self, name, Path(value) if isinstance(value, str | os.PathLike) else value)
        if self.res is not None:
            resolution_from(self.res)
        check_threshold(self.threshold)
        if isinstance(self.frames, bool) or not isinstance(self.frames, int) or self.frames < 1:
            raise UsageError(f"frames is {self.frames!r}, expected a whole number from 1")

    @property
    def backend_name(self) -> str | None:
        """The backend; None leaves the choice to the runtime."""
        return None if self.backend == AUTO else self.backend
