"""The options of ``sfpp-engine``."""

from __future__ import annotations

import argparse

from sfpp.runtime.tensorrt.library import LIBRARIES

COMMAND = "sfpp-engine"

_DESCRIPTION = """\
Build an engine for an NVIDIA GPU from an ONNX file, with TensorRT or TensorRT-RTX, and put its
contract beside it: what it takes and gives, what it was built with and for, and the hash of the file.
The engine's precision is the file's: sfpp-export writes float32, sfpp-calibrate float16 and INT8."""

_EPILOG = """\
which library:
  tensorrt      Jetson, data centre and desktop. An engine runs with the version and on the kind of card
                that it was built with, so it is built on the machine that runs it; that takes minutes.
  tensorrt-rtx  RTX cards, compute capability 7.5 and 8.0 on. Engines are built on any machine, without a
                card, in seconds, and compiled to the end when they are first run.

examples:
  sfpp-engine model.onnx                                    model.engine and model.json, for here
  sfpp-engine model.fp16.onnx --backend tensorrt-rtx        for all RTX cards from the 30 series on
  sfpp-engine model.int8.onnx --backend tensorrt-rtx --device sm89 -o ada.engine
  sfpp-engine model.fp16.onnx --workspace 512MiB --timing-cache times.bin      a Jetson with little memory
  sfpp-engine model.onnx --check                            what each version says of the file; builds nothing
then:
  sfpp-run model.engine --self-test                         does it answer as the file did?
  sfpp-run model.engine demo
exit codes: 0 built, or nothing found that hinders; 1 failed, or found; 2 wrong usage, 130 stopped by Ctrl-C."""


def engine_parser() -> argparse.ArgumentParser:
    """Return the parser; it imports nothing heavy."""
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="the .onnx file; with --check also one of another tool")
    add("-o", "--path", metavar="FILE", help="the engine to write (default: named after MODEL, beside it)")
    add(
        "--backend",
        choices=LIBRARIES,
        help="the library to build with (default: what is installed, TensorRT first)",
    )
    add(
        "--device",
        metavar="SM",
        help="compute capability to build for, such as sm86, sm89 or sm120, several with commas, or current for this "
        "machine's card (default: TensorRT this card, TensorRT-RTX all from sm80 on)",
    )
    add("--workspace", metavar="SIZE", help="memory that layers may use, such as 2GiB (default: all there is)")
    add(
        "--timing-cache",
        metavar="FILE",
        help="measured times of kernels, read and written: a second build is much faster (TensorRT)",
    )
    add(
        "--dla",
        type=int,
        metavar="N",
        help="let deep learning accelerator N do what it can, of some Jetsons; little of these networks (TensorRT)",
    )
    add("--version-compatible", action="store_true", help="let later versions run it; may be slower (TensorRT)")
    add("--hardware-compatible", action="store_true", help="let any card from sm80 on run it; slower (TensorRT)")
    add("--contract", metavar="FILE", help="what the model takes and gives, for a file that does not say so itself")
    add(
        "--check",
        action="store_true",
        help="build nothing: say what TensorRT 8.6, 10.3, 10.13, 11 and TensorRT-RTX would make of the file, by node, "
        "and what NVIDIA's own parser and builder say where they are installed",
    )
    return parser
