"""Files that are written only to be examined: the same network with these or those nodes in INT8."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import onnx

from sfpp.calibration.graph import write_model
from sfpp.calibration.judging.examination import Examination, Examiner, drop_of
from sfpp.runtime.contract import ModelContract

Build = Callable[[Collection[str] | None], onnx.ModelProto]


class Trials:
    """Builds, writes, examines and forgets candidates.

    Args:
        build: gives the graph with the named nodes in INT8.
        contract: of the float32 file.
        examiner: judges.
        folder: for the candidate of the moment.
    """

    def __init__(self, build: Build, contract: ModelContract, examiner: Examiner, *, folder: Path) -> None:
        self._build = build
        self._contract = replace(contract, precision="int8")
        self._examiner = examiner
        self._path = folder / "candidate.onnx"

    def examine(self, nodes: Collection[str] | None, *, first: int | None = None) -> Examination:
        """Judge the network with these nodes in INT8 (None: all) by all held-out frames, or by the ``first`` ones."""
        write_model(self._build(nodes), self._contract, self._path)
        try:
            return self._examiner.examine(self._path, first=first)
        finally:
            self._path.unlink()

    def drop(self, nodes: Collection[str]) -> float:
        """Return what is lost with these nodes in INT8; see :func:`sfpp.calibration.judging.examination.drop_of`."""
        return drop_of(self.examine(nodes).accuracy, self._examiner.reference.accuracy)
