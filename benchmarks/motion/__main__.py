"""Labels that are carried along the motion of the picture: how good they are, live too, and what they cost.

    python -m benchmarks.motion --data camvid/val                       # everything, hours
    python -m benchmarks.motion --data camvid/val --parts quality --cases original --res 960x720
    python -m benchmarks.motion --parts speed --rounds 1 --frames 8 --res 480x360

`quality` runs a labeled sequence as a file, `live` by the clock as a camera, `speed` times whole runs and `cost` the
work of carrying; all through the pipeline of `sfpp-run`. For `quality` and `live` the network sees each frame once, and
its answers are then given from memory. In benchmarks/results/motion.json what was not run stays as it is.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, machine
from benchmarks.motion import live, quality, speed
from benchmarks.motion.drive import Drive
from benchmarks.motion.scores import Judge
from benchmarks.paired import GRAMMAR, Case, contestants
from sfpp.runtime import Segmenter
from sfpp.runtime.files import write_text

PARTS = ("quality", "live", "speed", "cost")
_RES = {"quality": ("480x360",), "live": ("480x360",), "speed": speed.SIZES, "cost": speed.COST_SIZES}
_CASES = {"quality": quality.CASES, "live": live.CASES, "speed": speed.CASES, "cost": speed.COST_CASES}


def measure(part: str, arguments: argparse.Namespace) -> Iterator[list[Any]]:
    """Yield the rows of each case and size of a part."""
    judged: tuple[Drive, Judge] | None = None
    for res in arguments.res or _RES[part]:
        for case in arguments.cases or _CASES[part]:
            with ExitStack() as stack:
                model = _opened(case, res, stack)
                if part == "speed":
                    yield speed.measure(case, res, model, frames=arguments.frames, rounds=arguments.rounds)
                elif part == "cost":
                    yield [speed.cost(case, res, model, frames=arguments.frames)]
                else:
                    judged = judged or _judged(arguments.data, model)
                    if part == "quality":
                        yield quality.measure(case, res, model, *judged)
                    else:
                        yield live.measure(case, res, model, *judged, rounds=arguments.rounds)


def _opened(case: str, res: str, stack: ExitStack) -> Segmenter:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    (found,) = contestants([Case.from_text(case)], folder, res=res)
    model: Segmenter = found.model
    stack.callback(model.close)
    return model


def _judged(data: Path | None, model: Segmenter) -> tuple[Drive, Judge]:
    if data is None:
        sys.exit("--data is missing; quality and live need a folder with images/ and labels/ of one sequence")
    drive = Drive.read(data, model.contract)
    return drive, Judge(drive, model.contract.classes)


def keep(path: Path, part: str, rows: Sequence[Any]) -> None:
    """Write the rows of a case and size in place of those that are there, with the machine that measured last."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    new = [asdict(row) for row in rows]
    measured = {_place(row) for row in new}
    old = [row for row in content.get(part, {}).get("results", ()) if _place(row) not in measured]
    order = list(_CASES[part])
    rank = {case: number for number, case in enumerate(order)}
    results = sorted([*old, *new], key=lambda row: (_pixels(row["res"]), rank.get(row["case"], len(order))))
    content[part] = {"machine": machine(), "results": results}
    write_text(path, json.dumps(content, indent=1))


def _place(row: dict[str, Any]) -> tuple[str, str]:
    return row["case"], row["res"]


def _pixels(res: str) -> int:
    width, height = map(int, res.split("x"))
    return width * height


def main() -> None:
    """Measure the parts that are asked for, and keep each result as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with images/ and labels/ of one sequence, 15 frames a second")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--cases", nargs="+", metavar="CASE", help=f"each is {GRAMMAR} (default: each part's own)")
    parser.add_argument("--res", nargs="+", metavar="WxH", help="input sizes of the network (default: each part's own)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="live and speed: runs of each kind (default: %(default)s)"
    )
    parser.add_argument("--frames", type=int, default=24, help="speed: of the clip (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "motion.json")
    arguments = parser.parse_args()
    for part in arguments.parts:
        for rows in measure(part, arguments):
            keep(arguments.output, part, rows)
            print(*rows, sep="\n", flush=True)


if __name__ == "__main__":
    main()
