"""No false alarm: what sfpp-export and sfpp-calibrate write for TensorRT is called fine, and NVIDIA builds it."""

import onnx
import pytest

from sfpp.calibration.fp16.fp16_model import fp16_model
from sfpp.calibration.int8.int8_model import int8_model
from sfpp.calibration.int8.quantizable import quantizable
from sfpp.export import export_onnx
from sfpp.export.check import check_model
from sfpp.tooling.graph import read_model
from tests.calibration.int8.int8_graphs import symmetric
from tests.export.check.graphs import outcomes, rules
from tests.golden import FOLDER, GoldenCase
from tests.tensorrt_rtx import build_engine

VERSIONS = ("8.6", "10.3", "10.13", "10.16", "11", "11.5", "rtx")
SIZE = "160x128"  # width x height; at 128x96 the cells of hq do not fit stage 4
TARGETS = ("portable", "tensorrt")
PRECISIONS = {
    "fp32": lambda model: model,
    "fp16": lambda model: fp16_model(model),
    "int8": lambda model: int8_model(model, ranges(model)),
}
EXPORTS = {
    **{variant: {"variant": variant} for variant in ("original", "fast", "fast+", "2x2", "downsample", "kv2x2")},
    "hq, local": {"variant": "hq", "matching": "local"},
    "fast, local, shared": {"variant": "fast", "matching": "local", "share_matching": 0},
    "masks": {"output": "labels", "multi_label": True},
    "labels, batch 2": {"variant": "hq", "output": "labels", "batch": 2},
    "pose": {"variant": "fast", "task": "pose", "res": "128x160"},
    "float32 input": {"variant": "2x2", "input": "float32", "opset": 17},
}
EDAFORMERS = [path.stem for path in sorted(FOLDER.glob("edaformer_t_*.json"))] or [None]


def ranges(model):
    return symmetric({each.activation: 3.0 for each in quantizable(model)})


def assert_no_alarm(model, folder):
    """Every precision of a float32 file builds everywhere, without a warning."""
    for precision, made in PRECISIONS.items():
        path = folder / f"{precision}.onnx"
        onnx.save(made(model), path)
        report = check_model(path)
        assert not report.findings, (precision, report.findings[0])
        assert outcomes(report) == dict.fromkeys(VERSIONS, "builds")
        assert (
            report.precision
            == {"fp32": "float32", "fp16": "float32 and float16", "int8": "float32 and int8"}[precision]
        )


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The hq model as it is exported for TensorRT."""
    path = tmp_path_factory.mktemp("exported") / "hq.onnx"
    return export_onnx(path=path, variant="hq", target="tensorrt", res=SIZE).path


def test_an_exported_file_and_its_conversions_raise_no_alarm(exported, tmp_path):
    assert_no_alarm(read_model(exported), tmp_path)


def test_the_report_tells_what_the_file_is(exported):
    report = check_model(exported)
    contract = report.contract
    assert (contract.variant, contract.target, contract.precision) == ("hq", "tensorrt", "fp32")
    assert (report.opset, report.precision) == (17, "float32")
    assert report.nodes == len(onnx.load(exported).graph.node)
    assert report.size_bytes == exported.stat().st_size


def test_int8_with_the_rest_in_float16_is_not_for_tensorrt_8(exported, tmp_path):
    model = read_model(exported)
    path = tmp_path / "int8.onnx"
    onnx.save(fp16_model(int8_model(model, ranges(model), rest="fp16")), path)
    report = check_model(path)
    assert outcomes(report) == dict.fromkeys(VERSIONS, "builds") | {"8.6": "does not build"}
    assert rules(report) == {"scale-float16", "opset-above"}
    assert {each.versions for each in report.findings} == {("8.6",)}
    assert "float32 and float16 and int8" in report.precision


@pytest.mark.parametrize("precision", [pytest.param("fp32", marks=pytest.mark.slow), "fp16", "int8"])
def test_tensorrt_rtx_builds_what_is_called_fine(exported, precision, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(PRECISIONS[precision](read_model(exported)), path)
    assert check_model(path, versions=("rtx",)).verdict("rtx").outcome == "builds"
    assert build_engine(path)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("options", EXPORTS.values(), ids=EXPORTS)
def test_no_export_raises_an_alarm(options, target, tmp_path):
    report = export_onnx(path=tmp_path / "model.onnx", target=target, **{"res": SIZE, **options})
    assert_no_alarm(read_model(report.path), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", EDAFORMERS)
def test_no_edaformer_raises_an_alarm(name, tmp_path):
    if name is None:
        pytest.skip("the golden cases are not here")
    case = GoldenCase(name)
    path = tmp_path / "model.onnx"
    report = export_onnx(
        case.save_checkpoint(tmp_path), path, target="tensorrt", res=SIZE, output="labels", **case.variant(tmp_path)
    )
    assert_no_alarm(read_model(report.path), tmp_path)


@pytest.mark.slow
def test_a_file_for_onnx_runtime_is_for_tensorrt_rtx_alone(tmp_path):
    report = check_model(export_onnx(path=tmp_path / "model.onnx", target="onnxruntime", res=SIZE).path)
    assert outcomes(report) == dict.fromkeys(VERSIONS, "does not build") | {"rtx": "builds"}
    assert rules(report) == {"operator-foreign"}
    assert {each.operator for each in report.findings} == {"MultiHeadAttention"}
    assert all("--target tensorrt" in each.remedy for each in report.findings)
