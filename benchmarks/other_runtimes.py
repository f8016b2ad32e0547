"""Which labels a converted file gives in LiteRT or ncnn, against ONNX Runtime's.

    python -m benchmarks.other_runtimes litert --env ~/litert --variants fast 2x2
    python -m benchmarks.other_runtimes ncnn --env ~/ncnn --variants original 2x2

`--env` is a virtual environment with the converter, since its libraries exclude others: onnx2tf and ai-edge-litert, or
ncnn, and pnnx without its dependencies. Prints the rows of docs/other-runtimes.md.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from sfpp.export import export_onnx
from sfpp.export.demo import demo_frame
from sfpp.runtime.images import input_from_frame
from sfpp.runtime.pixels.pictures import read_image

# Without a sample of its own at hand the converter would fetch one.
_LITERT = """
import subprocess, sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
model, name = sys.argv[1:]
np.save("calibration_image_sample_data_20x128x128x3_float32.npy", np.zeros((20, 128, 128, 3), np.float32))
subprocess.run([sys.prefix + "/bin/onnx2tf", "-i", model, "-o", "out", "-kat", name, "-n"], check=True)
interpreter = Interpreter("out/" + model.rpartition("/")[2].replace(".onnx", "_float32.tflite"))
interpreter.allocate_tensors()
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.load("given.npy"))
interpreter.invoke()
np.save("answer.npy", interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).transpose(0, 3, 1, 2))
"""
# The package itself cannot be imported without torch; the program in it needs none.
_NCNN = """
import importlib.util, shutil, subprocess, sys
import ncnn, numpy as np
model, _ = sys.argv[1:]
given = np.load("given.npy")
(folder,) = importlib.util.find_spec("pnnx").submodule_search_locations
shutil.copy(model, "model.onnx")
shape = ",".join(map(str, given.shape))
subprocess.run([folder + "/pnnx", "model.onnx", f"inputshape=[{shape}]", "fp16=0"], check=True)
net = ncnn.Net()
net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = net.opt.use_fp16_packed = False
if net.load_param("model.ncnn.param") or net.load_model("model.ncnn.bin"):
    sys.exit("ncnn does not load what pnnx wrote")
extractor = net.create_extractor()
extractor.input("in0", ncnn.Mat(given[0]).clone())
np.save("answer.npy", np.array(extractor.extract("out0")[1])[np.newaxis])
"""
TOOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "litert": (_LITERT, {"opset": 20}),
    "ncnn": (_NCNN, {"input": "float32"}),
}


def measure(tool: str, python: Path, variant: str, res: str) -> str:
    """Return the share of equal labels as text, or the last line of what the tool says against the file."""
    script, options = TOOLS[tool]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report = export_onnx(path=folder / "exported.onnx", variant=variant, res=res, **options)
        given, _ = input_from_frame(read_image(demo_frame()), report.contract.input)
        np.save(folder / "given.npy", given)
        command = [str(python), "-c", script, str(report.path), report.contract.input.name]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"fails: {(done.stderr.strip() or f'exit status {done.returncode}').splitlines()[-1]}"
        session = onnxruntime.InferenceSession(report.path, providers=["CPUExecutionProvider"])
        expected = session.run(None, {report.contract.input.name: given})[0]
        equal = labels(np.load(folder / "answer.npy")) == labels(expected)
    return f"{np.mean(equal):.3%}"


def labels(logits: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the best classes (batch, 4 h, 4 w) of logits (batch, classes, h, w)."""
    size = (4 * logits.shape[3], 4 * logits.shape[2])
    upsampled = [[cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in frame] for frame in logits]
    return np.array(upsampled).argmax(1)


def main() -> None:
    """Print a row for each variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=TOOLS)
    parser.add_argument("--env", type=Path, required=True, help="virtual environment with the converter")
    parser.add_argument("--variants", nargs="+", default=["original", "fast", "2x2"])
    parser.add_argument("--res", default="320x192", help="size of the files, WIDTHxHEIGHT")
    options = parser.parse_args()
    for variant in options.variants:
        found = measure(options.tool, options.env.expanduser() / "bin" / "python", variant, options.res)
        print(f"| {options.tool} | `{variant}` | {found} |", flush=True)


if __name__ == "__main__":
    main()
