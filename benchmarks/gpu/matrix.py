"""What is measured, in which order, and which graphs that takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from benchmarks.speed.results import PYTORCH, TRANSFORMERS
from sfpp.runtime.contract import MatchingRule, OutputKind, Target

Precision = Literal["fp32", "tf32", "fp16"]
PRECISIONS = get_args(Precision)
SDPA, COMPILED = f"{PYTORCH}:sdpa", f"{PYTORCH}:compiled"


@dataclass(frozen=True)
class Graph:
    """A file to run: ``transformers`` or a variant of ours, with what follows it in its name, as in ``fast:local``.

    ``local`` matches nearby, ``portable`` keeps to standard operators instead of ONNX Runtime's own, and ``labels``
    answers with labels instead of logits.
    """

    network: str
    size: str
    name: str
    precision: Precision

    @property
    def variant(self) -> str:
        """The name without what follows it."""
        return self.name.split(":")[0]

    @property
    def matching(self) -> MatchingRule | None:
        """Where partners are looked for; None is where the variant does."""
        return "local" if "local" in self._marks else None

    @property
    def target(self) -> Target:
        """What the graph is written for."""
        return "portable" if "portable" in self._marks else "onnxruntime"

    @property
    def output(self) -> OutputKind:
        """What it answers with."""
        return "labels" if "labels" in self._marks else "logits"

    @property
    def file_name(self) -> str:
        """TF32 is an option of the library, not another file."""
        precision = "fp16" if self.precision == "fp16" else "fp32"
        return f"{self.network}-{self.size}-{self.name.replace(':', '-')}-{precision}.onnx"

    @property
    def _marks(self) -> list[str]:
        return self.name.split(":")[1:]


@dataclass(frozen=True)
class Group:
    """Contestants of one network, size and precision, which run in turn."""

    network: str
    size: str
    precision: Precision
    names: tuple[str, ...]

    @property
    def title(self) -> str:
        """For messages."""
        return f"{self.network} {self.size} {self.precision}"

    @property
    def backend(self) -> str:
        """As the results call it, whatever the library: all of a group compute in this."""
        return f"gpu:{self.precision}"

    @property
    def graphs(self) -> list[Graph]:
        """Those of the contestants that are files."""
        named = [name for name in self.names if not name.startswith(PYTORCH)]
        return [Graph(self.network, self.size, name, self.precision) for name in named]


def _group(network: str, size: str, precision: Precision, names: str) -> Group:
    return Group(network, size, precision, tuple(names.split()))


# What matters most comes first: a run that is cut off has measured the best part. PyTorch's written-out attention and
# Transformers' own export hold all scores, 16 GiB of them at 3840x2160, and are left out there. A compilation that
# takes too long ends its group's process, so the groups that have one come when others are done.
FULL = (
    _group("b5", "1024x1024", "fp16", f"{PYTORCH} {SDPA} {TRANSFORMERS} original hq fast fast:local 2x2"),
    _group("b5", "3840x2160", "fp16", f"{SDPA} original hq fast fast:local"),
    _group(
        "b0",
        "1024x1024",
        "fp16",
        f"{COMPILED} {PYTORCH} {SDPA} {TRANSFORMERS} original hq fast fast:local 2x2 fast:portable fast:labels",
    ),
    _group("b5", "1024x1024", "fp32", f"{PYTORCH} {SDPA} {TRANSFORMERS} original hq fast"),
    _group("b0", "1920x1080", "fp16", f"{SDPA} original fast fast:local 2x2 fast:labels"),
    _group("b5", "512x512", "fp16", f"{SDPA} original hq fast"),
    _group("b0", "3840x2160", "fp16", f"{SDPA} original fast fast:local 2x2 fast:labels"),
    _group("b5", "2048x2048", "fp16", f"{SDPA} original hq fast"),
    _group("b2", "1024x1024", "fp16", f"{COMPILED} {PYTORCH} {SDPA} {TRANSFORMERS} original hq fast fast:local 2x2"),
    _group("b0", "1024x1024", "fp32", f"{PYTORCH} {SDPA} {TRANSFORMERS} original hq fast fast:local 2x2"),
    _group("b5", "1024x1024", "tf32", f"{SDPA} original fast"),
    _group("b0", "512x512", "fp16", f"{SDPA} original fast fast:local"),
    _group("b2", "1920x1080", "fp16", f"{SDPA} original fast fast:local"),
    _group("b5", "3840x2160", "fp32", f"{SDPA} original hq fast"),
)
# To see on any machine that all parts work; far too small to say anything.
TINY = (
    _group("b0", "128x128", "fp32", f"{PYTORCH} {SDPA} {TRANSFORMERS} fast"),
    _group("b0", "128x128", "fp16", "fast fast:labels"),
)
PRESETS = {"full": FULL, "tiny": TINY}


def graphs_of(groups: Sequence[Group]) -> list[Graph]:
    """Return the files that the groups need, each once, by network, so that each checkpoint is made once."""
    files = {graph.file_name: graph for group in groups for graph in group.graphs}
    return sorted(files.values(), key=lambda graph: graph.network)
