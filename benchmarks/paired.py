"""What the accuracy benchmarks share: cases by name, what each saw frame by frame, and the range of their differences.

Every case sees the same frames and takes its turn at each, so that a busy machine slows all alike. A range goes from 5
to 95 % of a paired bootstrap: frames are drawn with replacement, the same for all cases, and their counts are summed
anew. Neighboring frames of a video look alike and are drawn together, in blocks. What was counted in each frame is kept
beside the result, where git ignores it, so that cases can be added later.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import RESULTS, points_text
from sfpp.export import export_onnx
from sfpp.runtime import load
from sfpp.runtime.backends.protocol import Precision
from sfpp.runtime.files import whole_file

RESAMPLES = 2000
PERCENTILES = (5, 95)
GRAMMAR = (
    "a variant, with :local or :exact for its matching, :sized for merged keys that weigh by how many tokens they are, "
    ":share2 or :shareall for blocks that share a matching, :flip for a pose model's flip test; @openvino:bf16 names a "
    "backend and what it computes in, ONNX Runtime unless told"
)

Seen: TypeAlias = Mapping[str, Mapping[str, NDArray[Any]]]  # by case and by what is counted; the first axis is frames
Score: TypeAlias = Callable[[NDArray[Any]], NDArray[np.float64]]  # of summed counts, over any axes before theirs


@dataclass(frozen=True)
class Case:
    """One row to be: what is exported, and what runs it."""

    name: str
    variant: str
    options: Mapping[str, Any]
    backend: str = "onnxruntime"
    precision: Precision | None = None
    flip_test: bool = False

    @staticmethod
    def from_text(text: str) -> Case:
        """Read such as ``fast:local:share2@openvino:bf16``."""
        model, _, place = text.partition("@")
        variant, *words = model.split(":")
        backend, _, precision = place.partition(":")
        options: dict[str, Any] = {}
        for word in words:
            if word in ("local", "exact"):
                options["matching"] = word
            elif word == "sized":
                options["size_weighted"] = True
            elif match := re.fullmatch(r"share(\d+|all)", word):
                options["share_matching"] = 0 if match[1] == "all" else int(match[1])
            elif word != "flip":
                raise argparse.ArgumentTypeError(f"{text!r} has the unknown part {word!r}; a case is {GRAMMAR}")
        computed_in = cast("Precision | None", precision or None)
        return Case(text, variant, options, backend or "onnxruntime", computed_in, "flip" in words)


class Contestant:
    """The model of a case, and what has been seen of it, frame by frame."""

    def __init__(self, name: str, model: Any) -> None:
        self.name = name
        self.model = model
        self.seen: dict[str, list[Any]] = defaultdict(list)

    def run(self, *inputs: Any) -> Any:
        """Return the model's prediction for a frame, and note how long it took."""
        start = time.perf_counter()
        prediction = self.model(*inputs)
        self.note(latency_ms=(time.perf_counter() - start) * 1e3)
        return prediction

    def note(self, **values: Any) -> None:
        """Add what was seen in this frame, by name."""
        for name, value in values.items():
            self.seen[name].append(value)


def contestants(cases: Sequence[Case], folder: Path, **options: Any) -> list[Contestant]:
    """Export the cases with further options and load them."""
    found = []
    for index, case in enumerate(cases):
        target = "onnxruntime" if case.backend == "onnxruntime" else "portable"
        path = export_onnx(
            path=folder / f"{index}.onnx", variant=case.variant, target=target, **case.options, **options
        ).path
        model = load(path, backend=case.backend, precision=case.precision, flip_test=case.flip_test)
        found.append(Contestant(case.name, model))
    return found


def seen_by(found: Sequence[Contestant]) -> Seen:
    """Return all that was noted, as arrays over the frames, and ``time_ratio``: times relative to the first case's."""
    first = np.array(found[0].seen["latency_ms"])
    return {
        each.name: {
            **{name: np.array(values) for name, values in each.seen.items()},
            "time_ratio": np.array(each.seen["latency_ms"]) / first,
        }
        for each in found
    }


@dataclass(frozen=True)
class Row:
    """What the rows of both tables have.

    Attributes:
        agreement_with_original: the mean share of labels or joints that are as in the first case.
        time_ratio: the median over frames of the time relative to that of the first case.
    """

    case: str
    agreement_with_original: float
    latency_ms: float
    time_ratio: float

    def time_text(self, first: str) -> str:
        """Return the time of the first case, or of another one relative to it: they may not have run on one day."""
        return f"{self.latency_ms:.0f} ms" if self.case == first else f"{self.time_ratio:.2f}x"


def row_values(case: str, found: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Return the fields of a :class:`Row` from what a case saw."""
    return {
        "case": case,
        "agreement_with_original": float(found["agreement"].mean()),
        "latency_ms": float(np.median(found["latency_ms"])),
        "time_ratio": float(np.median(found["time_ratio"])),
    }


@dataclass(frozen=True)
class Difference:
    """How much better a case is than another one by a measure: points (100 = all), and the range of it."""

    case: str
    than: str
    measure: str
    points: float
    low: float
    high: float

    @property
    def within_chance(self) -> bool:
        """Whether the range holds no difference at all."""
        return self.low <= 0 <= self.high

    def text(self) -> str:
        """Return it for a table, in bold where it is beyond chance."""
        mark = "" if self.within_chance else "**"
        return f"{mark}{points_text(self.points)}{mark} ({self.low:+.2f}..{self.high:+.2f})"


def differences(seen: Seen, measures: Mapping[str, tuple[str, Score]], block: NDArray[Any]) -> list[Difference]:
    """Compare each case with the first one, and with those of the same merging, such as `fast+` with `fast:local`.

    Args:
        seen: counts that add up over frames.
        measures: the counts' name and the score, 0..1, of their sum, by the measure's name.
        block: (frames,) ascending; frames with the same number are drawn together.
    """
    found = []
    for measure, (name, score) in measures.items():
        scores = {case: 100 * score(counts[name].sum(axis=0)) for case, counts in seen.items()}
        drawn = {case: 100 * _resampled(counts[name], score, block) for case, counts in seen.items()}
        for case, than in _pairs(list(seen)):
            low, high = np.percentile(drawn[case] - drawn[than], PERCENTILES)
            found.append(Difference(case, than, measure, float(scores[case] - scores[than]), float(low), float(high)))
    return found


def _resampled(counts: NDArray[Any], score: Score, block: NDArray[Any]) -> NDArray[np.float64]:
    """Return the scores (RESAMPLES,) of as many draws of the blocks; the draws depend on the blocks' number alone."""
    totals = np.add.reduceat(counts, np.flatnonzero(np.diff(block, prepend=-1))).astype(np.float64)
    draws = np.random.default_rng(0).multinomial(len(totals), np.full(len(totals), 1 / len(totals)), RESAMPLES)
    return score(np.tensordot(draws.astype(np.float64), totals, axes=1))


def _pairs(cases: Sequence[str]) -> Iterator[tuple[str, str]]:
    for case in cases[1:]:
        for than in cases:
            if than != case and (than == cases[0] or _merging(than) == _merging(case)):
                yield case, than


def _merging(case: str) -> str:
    return re.split("[+:@]", case)[0]


def chance_text(found: Sequence[Difference]) -> str:
    """Return a line per measure that names the differences within the range of chance, and those beyond it."""
    lines = []
    for measure in dict.fromkeys(each.measure for each in found):
        named: dict[bool, list[str]] = {True: [], False: []}
        pairs: set[tuple[str, str]] = set()
        for each in found:
            if each.measure == measure and (each.than, each.case) not in pairs:  # each pair is there both ways
                pairs.add((each.case, each.than))
                named[each.within_chance].append(f"{each.case} to {each.than}")
        within, beyond = (", ".join(named[chance]) or "nothing" for chance in (True, False))
        lines.append(f"{measure}: within chance {within}; beyond it {beyond}")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser, cases: Sequence[str], output: str) -> None:
    """Add what the benchmarks are told alike."""
    parser.add_argument(
        "--cases",
        nargs="+",
        type=Case.from_text,
        default=[Case.from_text(case) for case in cases],
        metavar="CASE",
        help=f"each is {GRAMMAR}; all are compared with the first (default: {' '.join(cases)})",
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every N-th frame or crop")
    parser.add_argument(
        "--add", action="store_true", help="keep the cases of the result that is there, and run its first one again"
    )
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / f"{output}.json")


def cases_to_run(arguments: argparse.Namespace) -> list[Case]:
    """Return the cases that are asked for, with ``--add`` after the first one of those that are kept."""
    if not arguments.add:
        return list(arguments.cases)
    first = next(iter(_kept(arguments.output)))
    return [Case.from_text(first), *(case for case in arguments.cases if case.name != first)]


def keep(arguments: argparse.Namespace, seen: Seen) -> Seen:
    """Write what was seen in each frame beside the result, and return it, with ``--add`` and what is kept there.

    Cases of the same merging stand together.
    """
    if arguments.add:
        seen = _joined(_kept(arguments.output), seen)
    merging = [_merging(case) for case in seen]
    seen = {case: seen[case] for case in sorted(seen, key=lambda case: merging.index(_merging(case)))}
    with whole_file(arguments.output.with_suffix(".npz")) as path:
        arrays = {f"{case}/{name}": array for case, found in seen.items() for name, array in found.items()}
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return seen


def _kept(output: Path) -> Seen:
    path = output.with_suffix(".npz")
    if not path.exists():
        sys.exit(f"there is no {path} to add to, which a run without --add leaves beside {output.name}")
    seen: dict[str, dict[str, NDArray[Any]]] = defaultdict(dict)
    with np.load(path) as stored:
        for key in stored.files:
            case, _, name = key.rpartition("/")
            seen[case][name] = stored[key]
    return seen


def _joined(kept: Seen, new: Seen) -> Seen:
    """Return both, where the first case's counts show that they saw the same frames on a machine of the same kind."""
    first = next(iter(new))
    for name, counts in new[first].items():
        if counts.dtype.kind == "i" and not np.array_equal(counts, kept[first][name]):
            sys.exit(f"{first} differs from what is kept of it: other frames, or another machine; run without --add")
    return {**kept, **{case: found for case, found in new.items() if case != first}}
