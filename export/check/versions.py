"""The versions of TensorRT that are in the field, and the ONNX opsets that each is documented for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Version = Literal["8.6", "10.3", "10.13", "11", "rtx"]
ALL: tuple[Version, ...] = get_args(Version)
FROM_10_3: tuple[Version, ...] = ("10.3", "10.13", "11", "rtx")
TENSORRT: tuple[Version, ...] = ("8.6", "10.3", "10.13", "11")

TRIED = "tried with TensorRT-RTX 1.7"
OPERATORS = "onnx-tensorrt docs/operators.md"
CHANGELOG = "onnx-tensorrt docs/Changelog.md"


@dataclass(frozen=True)
class Release:
    """What is known of a version before any file is looked at.

    Attributes:
        title: as people call it.
        home: what it comes with.
        lowest_opset: from here on its parser is promised to read a file.
        highest_opset: the last one that its operators are documented for; None where files of every opset that there
            is were built.
    """

    title: str
    home: str
    lowest_opset: int
    highest_opset: int | None


# A version stands for its releases from the named one on, so the lowest of their promises counts: TensorRT 11.0 is
# documented for opset 24, and 11.5 for 25.
RELEASES: dict[Version, Release] = {
    "8.6": Release("TensorRT 8.6", "JetPack 6.0", 7, 17),
    "10.3": Release("TensorRT 10.3", "JetPack 6.1, 6.2", 9, 20),
    "10.13": Release("TensorRT 10.13", "JetPack 7.0, 7.1", 9, 23),
    "11": Release("TensorRT 11", "JetPack 7.2.2", 9, 24),
    "rtx": Release("TensorRT-RTX", "desktop RTX cards", 7, None),
}


def titles(versions: tuple[Version, ...]) -> str:
    """Return versions as a reader takes them in: ``TensorRT 10.3, 10.13 and TensorRT-RTX``."""
    numbered = [RELEASES[each].title.removeprefix("TensorRT ") for each in versions if each != "rtx"]
    words = [f"TensorRT {', '.join(numbered)}"] * bool(numbered) + [RELEASES["rtx"].title] * ("rtx" in versions)
    return " and ".join(words)
