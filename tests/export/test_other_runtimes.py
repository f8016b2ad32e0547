"""Files in the tools of others: converted and run in a process of its own, the answers compared with ONNX Runtime's."""

import shutil
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch.nn.functional as F
from torch import from_numpy

from sfpp.export.catalog import VARIANTS
from sfpp.export.demo import demo_frame
from sfpp.runtime.contract import METADATA_KEY
from sfpp.runtime.images import input_from_frame
from sfpp.runtime.pixels.pictures import read_image

FORMS = {
    **{name: {"variant": name} for name in VARIANTS},
    "local": {"variant": "fast", "matching": "local"},
    "labels": {"variant": "fast", "output": "labels"},
    "float32": {"variant": "2x2", "input": "float32"},
}
QUICK = ("original", "fast", "2x2")
ALL = [each if each in QUICK else pytest.param(each, marks=pytest.mark.slow) for each in FORMS]

OPENVINO = """
import sys
sys.modules["openvino_telemetry"] = None
import numpy, openvino
model, converted, given, answer = sys.argv[1:]
openvino.save_model(openvino.convert_model(model), converted, compress_to_fp16=False)
compiled = openvino.Core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
numpy.save(answer, compiled(numpy.load(given))[0])
"""
NODE = """
const fs = require('fs'), ort = require('onnxruntime-web');
const [model, given, answer, type, ...shape] = process.argv.slice(2);
ort.env.wasm.numThreads = 1;
(async () => {
  const session = await ort.InferenceSession.create(fs.readFileSync(model), { executionProviders: ['wasm'] });
  const bytes = new Uint8Array(fs.readFileSync(given)).buffer;
  const values = type === 'uint8' ? new Uint8Array(bytes) : new Float32Array(bytes);
  const fed = { [session.inputNames[0]]: new ort.Tensor(type, values, shape.map(Number)) };
  const data = (await session.run(fed))[session.outputNames[0]].data;
  fs.writeFileSync(answer, Buffer.from(data.buffer, data.byteOffset, data.byteLength));
})().catch((error) => { console.error(error); process.exit(1); });
"""


@pytest.fixture(scope="module")
def exported(demo_export):
    """Return the file of a form, an input for it, and what ONNX Runtime answers."""

    def export(form):
        report = demo_export(res="320x192", **FORMS[form])
        given, _ = input_from_frame(read_image(demo_frame()), report.contract.input)
        return report.path, given, in_onnxruntime(report.path, given)

    return export


def in_onnxruntime(path, given):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: given})[0]


def run(*command):
    """Run to its end; the words of what fails, or the signal that it died of, are the test's message."""
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stderr[-2000:]}"


def assert_same_labels(answer, expected):
    assert (answer.shape, answer.dtype) == (expected.shape, expected.dtype)
    if expected.ndim == 4:
        answer, expected = (
            F.interpolate(from_numpy(each), scale_factor=4, mode="bilinear") for each in (answer, expected)
        )
        answer, expected = answer.argmax(1).numpy(), expected.argmax(1).numpy()
    assert len(np.unique(expected)) > 5
    assert np.mean(answer == expected) >= 0.999


@pytest.mark.parametrize("form", ALL)
def test_openvinos_converter(exported, tmp_path, form):
    """Its passes make another graph than reading the ONNX file does, which must compile too."""
    path, given, expected = exported(form)
    np.save(tmp_path / "given.npy", given)
    files = [tmp_path / name for name in ("model.xml", "given.npy", "answer.npy")]
    run(sys.executable, "-c", OPENVINO, path, *files)
    assert_same_labels(np.load(files[-1]), expected)


@pytest.mark.parametrize("form", ALL)
def test_onnxslim(exported, tmp_path, form):
    pytest.importorskip("onnxslim", reason="onnxslim is not installed")
    path, given, expected = exported(form)
    slim = tmp_path / "slim.onnx"
    run(sys.executable, "-m", "onnxslim", path, slim)
    assert_same_labels(in_onnxruntime(slim, given), expected)
    facts = [onnxruntime.InferenceSession(each).get_modelmeta().custom_metadata_map for each in (path, slim)]
    assert facts[0][METADATA_KEY] == facts[1][METADATA_KEY]


@pytest.mark.parametrize("form", ALL)
def test_onnxruntime_web_in_node(exported, tmp_path, form):
    node = shutil.which("node")
    if (
        node is None
        or subprocess.run([node, "-e", "require.resolve('onnxruntime-web')"], capture_output=True).returncode
    ):
        pytest.skip("onnxruntime-web is not installed: npm install -g onnxruntime-web, NODE_PATH=$(npm root -g)")
    path, given, expected = exported(form)
    script, raw, answer = (tmp_path / name for name in ("run.js", "given.raw", "answer.raw"))
    script.write_text(NODE)
    raw.write_bytes(given.tobytes())
    run(node, script, path, raw, answer, given.dtype, *given.shape)
    assert_same_labels(np.fromfile(answer, expected.dtype).reshape(expected.shape), expected)
