"""Files whose input is NV12: the graph's colors are OpenCV's to the bit, in every library and precision."""

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from sfpp.calibration.fp16.fp16_model import fp16_model
from sfpp.export import export_onnx
from sfpp.export.demo import demo_frame
from sfpp.export.lowering.passes import lowered
from sfpp.export.lowering.symbolic import trace_to_onnx
from sfpp.export.nv12 import ColorFromNv12
from sfpp.export.parity import parity
from sfpp.runtime import load
from sfpp.runtime.contract import InputSpec
from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.pixels.nv12 import bgr_from_nv12, nv12_from_bgr
from sfpp.runtime.pixels.pictures import read_image
from tests.runtime.pixels.test_nv12 import every_color
from tests.tensorrt_rtx import build_engine

RES = "96x64"  # width x height


@pytest.fixture(scope="module")
def report(demo_export):
    return demo_export(res=RES, input="nv12")


@pytest.fixture(scope="module")
def frame():
    return cv2.resize(read_image(demo_frame()), (96, 64), interpolation=cv2.INTER_AREA)


def test_the_contract_says_it(report):
    spec = report.contract.input
    assert (spec.layout, spec.matrix, spec.dtype, spec.shape) == ("NV12", "bt601", "uint8", (1, 96, 96))
    given = onnx.load(report.path).graph.input[0].type.tensor_type
    assert given.elem_type == onnx.TensorProto.UINT8
    assert [each.dim_value for each in given.shape.dim] == [1, 96, 96]
    assert report.contract.self_test is not None


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_bgr_and_its_nv12_have_the_same_labels(report, frame, backend):
    with load(report.path, backend=backend) as model:
        labels = model(nv12_from_bgr(frame, "bt601")).labels
        assert labels.shape == frame.shape[:2]
        np.testing.assert_array_equal(labels, model(frame).labels)
        assert len(np.unique(labels)) > 2
        with pytest.raises(MediaError, match="expected NV12"):
            model(frame[:, :95, 0])


@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
def test_every_color_to_the_bit(tmp_path, matrix, order):
    """Also where a library divides whole numbers as floats, or is asked for less than float32."""
    spec = InputSpec(name="frame", height=512, width=512, layout="NV12", matrix=matrix, color_order=order)
    path = tmp_path / "color.onnx"
    traced = trace_to_onnx(ColorFromNv12(spec).eval(), torch.zeros((1, 768, 512)), names=("f", "color"), opset=17)
    onnx.save(lowered(traced, "portable"), path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    openvino = pytest.importorskip("openvino").Core()
    others = [openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": each}) for each in ("f32", "bf16")]
    for v in (0, 49, 73, 128, 255):  # with 49 and 73 a sum of 28 bits rounded to float32 would give another color
        planes = every_color(v)
        expected = bgr_from_nv12(planes, matrix)[..., :: 1 if order == "BGR" else -1].transpose(2, 0, 1)
        given = planes[np.newaxis].astype(np.float32)
        for found in (session.run(None, {"f": given})[0], *(each(given)[0] for each in others)):
            np.testing.assert_array_equal(found[0], expected)


def test_few_nodes_that_every_target_knows(report, demo_export):
    model = onnx.load(report.path)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 17)]
    assert len(model.graph.node) - len(onnx.load(demo_export(res=RES).path).graph.node) < 30
    types = {value.name: value.type.tensor_type.elem_type for value in [*model.graph.value_info, *model.graph.output]}
    ours = [node for node in model.graph.node if node.name.startswith("color/")]
    assert len(ours) > 10
    assert {types[name] for node in ours for name in node.output} == {onnx.TensorProto.FLOAT, onnx.TensorProto.INT32}


def test_tensorrt_rtx_builds_it(report):
    assert build_engine(report.path)


def test_in_float16_colors_are_computed_as_before(report):
    """Whole numbers are, and what stands before them and the mean behind them would not fit into float16."""
    model = onnx.load(report.path)
    converted = fp16_model(model)
    types = {value.name: value.type.tensor_type.elem_type for value in converted.graph.value_info}
    before = [node for node in converted.graph.node if node.name.startswith("color/") or node.name in ("Sub", "Div")]
    assert len(before) > 10
    assert onnx.TensorProto.FLOAT16 not in {types[name] for node in before for name in node.output}
    assert onnx.TensorProto.FLOAT16 in types.values()


@pytest.mark.parametrize(
    "options",
    [
        {"input": "nv12-bt709"},
        {"input": "nv12", "batch": 2, "output": "labels", "variant": "2x2"},
        {"input": "nv12", "variant": "downsample", "target": "openvino"},
        {"input": "nv12", "task": "pose"},
    ],
    ids=str,
)
def test_every_form_agrees_with_pytorch(tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    res = "96x128" if options.get("task") == "pose" else RES
    report = export_onnx(res=res, **options)
    assert not report.parity.failures()
    assert f"-{options['input']}" in report.path.name


def test_parity_feeds_pytorch_the_same_pixels(report):
    done = parity(report.path)
    assert done.agrees, done.failures
    assert [note for note in done.notes if "the colors that NV12 keeps" in note]


def test_odd_sizes_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"--input is nv12, where two by two pixels share a color, .* 65x64 \(width x"):
        export_onnx(path=tmp_path / "model.onnx", res="65x64", input="nv12")
    assert not list(tmp_path.iterdir())


def test_the_wrong_matrix_shows(report, frame):
    """Why a file says which one it takes."""
    with load(report.path, backend="onnxruntime") as model:
        right, wrong = (model.infer(model.prepare(nv12_from_bgr(frame, each)))["logits"] for each in ("bt601", "bt709"))
    assert np.abs(right - wrong).max() > 0.1


def test_a_pose_model_is_given_nv12(tmp_path):
    report = export_onnx(path=tmp_path / "pose.onnx", res="96x128", input="nv12", task="pose")
    picture = cv2.resize(read_image(demo_frame()), (320, 240))
    boxes = [(40, 20, 90, 180)]
    with load(report.path, backend="onnxruntime") as model:
        planes = nv12_from_bgr(picture, "bt601")
        expected = model(bgr_from_nv12(planes, "bt601"), boxes).keypoints_xy
        np.testing.assert_array_equal(model(planes, boxes).keypoints_xy, expected)
