"""What is out of tolerance, in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sfpp.export.parity.points import first_of_parts
from sfpp.export.parity.report import OutputReport, PointReport
from sfpp.export.parity.tolerances import Tolerance

_NAMED = 3


@dataclass(frozen=True)
class Judge:
    """Holds figures to a tolerance.

    Attributes:
        tolerance: of the precision.
        pins: whether tokens are matched, so that without pinning both sides may settle near ties differently.
        answers: what is compared in the end, "labels" or "keypoints".
    """

    tolerance: Tolerance
    pins: bool
    answers: str

    def failures(self, outputs: Sequence[OutputReport], points: Sequence[PointReport]) -> list[str]:
        """Return what is out of tolerance; empty where nothing is."""
        lines = [line for output in outputs for line in self._of_output(output)]
        # What both modes meet alike is said once.
        return list(dict.fromkeys([*lines, *self._of_points(points)]))

    def _of_output(self, output: OutputReport) -> Iterator[str]:
        limits = self.tolerance
        strictly = output.mode == "pinned" or not self.pins
        least = limits.labels if strictly else limits.free_labels
        if output.problem:
            yield output.problem
        # Asked so that NaN is not within.
        if not output.same >= least:
            yield f"{self.answers} agree on {output.same:.2%} ({output.mode}), expected at least {least:.1%}"
        error = output.relative_error
        if strictly and error is not None and not error <= limits.output:
            yield f"the output's relative error is {error:.1e} ({output.mode}), expected at most {limits.output:.0e}"

    def _of_points(self, points: Sequence[PointReport]) -> Iterator[str]:
        limits = self.tolerance
        wrong = [point for point in points if not point.own <= limits.own]
        if wrong and math.isnan(wrong[0].own):
            yield f"from {wrong[0].name} on the graph's values are NaN or infinite"
            return  # there is nothing to be said of what comes after
        if wrong:
            first = first_of_parts(point.name for point in wrong)
            more = f" and {len(first) - _NAMED} more" if len(first) > _NAMED else ""
            count = sum(not point.detail for point in points)
            yield (
                f"{len(first)} of {count} parts differ by more than {limits.own:.0e}: {', '.join(first[:_NAMED])}{more}"
            )
        for point in points:
            if point.gap is not None and not point.gap <= limits.gap:
                yield (
                    f"{point.name} merges tokens with partners that are {point.gap:.1e} less similar than the best "
                    f"ones, expected at most {limits.gap:.0e}"
                )
