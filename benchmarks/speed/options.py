"""The options of the speed benchmark."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.machine import RESULTS
from sfpp.runtime.cli.console import positive_int

COMMAND = "benchmarks.speed"


def speed_parser(*, description: str | None) -> argparse.ArgumentParser:
    """Return the parser of ``python -m benchmarks.speed``."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {COMMAND}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = ["512x512", "1024x1024", "2048x2048", "3840x2160"]
    variants = ["original", "hq", "fast", "2x2", "hq:local", "fast:local"]
    backends = ["onnxruntime", "openvino:fp32", "openvino:bf16"]
    parser.add_argument("--sizes", nargs="+", default=sizes, metavar="WxH")
    parser.add_argument("--models", nargs="+", default=["b0", "b2", "b5"], metavar="SIZE", help="b0 to b5")
    parser.add_argument("--all-sizes", action="store_true", help="B2 to B5 also above 1024x1024, which takes hours")
    parser.add_argument("--variants", nargs="+", default=variants, help=f"default: {' '.join(variants)}")
    parser.add_argument(
        "--backends", nargs="+", default=backends, metavar="SPEC", help=f"default: {' '.join(backends)}"
    )
    parser.add_argument("--runs", type=positive_int, default=20, metavar="N", help="rounds (default: %(default)s)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=240.0,
        metavar="S",
        help="for the rounds of one network and size; three are always run (default: %(default)g)",
    )
    parser.add_argument(
        "--memory-gib", type=float, metavar="G", help="what open models may fill (default: 60 %% of the machine's)"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="keep exported files here, and take those that are there; delete them after a change of the export",
    )
    parser.add_argument("--append", action="store_true", help="keep the file's other networks and sizes")
    parser.add_argument("--report", action="store_true", help="measure nothing: print and draw what the file holds")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "speed.json")
    parser.add_argument(
        "--chart", type=Path, metavar="FILE", help=".svg or .png; the first and last backend, first network"
    )
    return parser
