import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sfpp.export import export_onnx
from sfpp.export.check.installed import check
from sfpp.export.engine import main
from sfpp.runtime.contract import contract_from_json
from sfpp.runtime.errors import BackendError
from sfpp.runtime.tensorrt import engines, library

SIZE = "256x192"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    return export_onnx(path=path, variant="fast", res=SIZE, target="tensorrt").path


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A file of another tool: a TopK that is too large for any TensorRT."""
    path = tmp_path_factory.mktemp("planted") / "topk.onnx"
    k = numpy_helper.from_array(np.array([3841], np.int64), "k")
    node = helper.make_node("TopK", ["x", "k"], ["values", "indices"], name="pick", axis=1)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 5000])
    values = helper.make_tensor_value_info("values", TensorProto.FLOAT, [1, 3841])
    graph = helper.make_graph([node], "planted", [x], [values], [k])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")


def run(capsys, *arguments):
    code = main([*map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_an_engine_and_its_contract_are_written_and_told_of(model, tmp_path, capsys, rtx):
    path = tmp_path / "street.engine"
    code, out, err = run(capsys, model, "-o", path, "--backend", "tensorrt-rtx", "--device", "sm86,sm89")
    assert code == 0
    assert f"--saveEngine={path} --computeCapabilities=86,89 --skipInference" in err
    assert f"for sm86, sm89, tensorrt-rtx {rtx.__version__}" in out
    assert f"contract: {tmp_path / 'street.json'}" in out
    assert f"next: sfpp-run {path} " in out
    record = contract_from_json((tmp_path / "street.json").read_text()).engine
    assert (record.library, record.version, record.devices, record.card) == (
        "tensorrt-rtx",
        rtx.__version__,
        ("sm86", "sm89"),
        "",
    )
    assert path.stat().st_size > 1_000_000


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--device", "sm61"], 2, "does not build for sm61; it does for sm75"),
        (["--device", "fast"], 2, "expected a compute capability such as sm86"),
        (["--workspace", "much"], 2, "expected for example 2GiB"),
        (["--dla", "0"], 2, "TensorRT-RTX has no deep learning accelerator"),
        (["--contract", "nowhere.json"], 1, "the contract nowhere.json cannot be read"),
        (["-o", f"{__file__}/a.engine"], 1, "test_engine.py is no folder; give another place"),
    ],
)
def test_wrong_arguments_are_named(model, capsys, rtx, arguments, code, message):
    found, out, err = run(capsys, model, "--backend", "tensorrt-rtx", *arguments)
    assert found == code
    assert not out
    assert message in err
    assert [each.name for each in model.parent.iterdir()] == [model.name]


def test_a_missing_model_is_named(capsys):
    code, _, err = run(capsys, "nothing.onnx")
    assert code == 1
    assert err == (
        "sfpp-engine: error: nothing.onnx is not a file; give the .onnx file that sfpp-export or sfpp-calibrate wrote\n"
    )


def test_without_any_library_the_command_says_what_to_install(model, capsys, monkeypatch):
    monkeypatch.setattr(library, "is_installed", lambda name: False)
    code, _, err = run(capsys, model)
    assert code == 1
    assert "building an engine needs TensorRT, which is not installed: on a Jetson it comes with JetPack" in err
    assert "pip install 'sfpp[rtx]'" in err
    code, _, err = run(capsys, model, "--backend", "tensorrt-rtx")
    assert err == (
        "sfpp-engine: error: building an engine needs TensorRT-RTX, which is not installed: pip install 'sfpp[rtx]'\n"
    )


def test_a_check_without_any_library_goes_by_the_rules(model, capsys, monkeypatch):
    monkeypatch.setattr("sfpp.export.check.installed.is_installed", lambda name: False)
    code, out, _ = run(capsys, model, "--check")
    assert code == 0
    assert out.startswith("NVIDIA's own parser was not asked: neither TensorRT nor TensorRT-RTX is installed here")
    assert "TensorRT 10.3" in out


def test_a_check_of_our_own_file_finds_nothing_and_nvidia_agrees(model, capsys, rtx):
    code, out, err = run(capsys, model, "--check")
    assert code == 0
    assert f"tensorrt-rtx {rtx.__version__}, installed here: builds it" in out
    assert f"asking TensorRT-RTX {rtx.__version__}" in err
    assert [each.name for each in model.parent.iterdir()] == [model.name]


def test_a_check_of_a_foreign_file_names_the_node_and_fails(planted, capsys, rtx):
    code, out, _ = run(capsys, planted, "--check")
    assert code == 1
    assert "pick" in out
    assert "does not build" in out
    (answer,) = check(planted, backend="tensorrt-rtx").answers
    assert "does not build topk.onnx" in answer.failure
    assert answer.text() in out


def test_what_a_library_refuses_is_not_to_be_built_next(tmp_path, capsys, rtx):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    path = tmp_path / "open.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    code, out, _ = run(capsys, path, "--check")
    assert code == 1
    assert "builds, with warnings" in out  # as the rules say, which know of optimization profiles
    assert "has no fixed size (?, 8)" in out
    assert out.endswith("next: change what is named above, and check the file again\n")


def test_what_only_tensorrt_8_refuses_does_not_fail_a_check(tmp_path, capsys):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])
    graph = helper.make_graph([helper.make_node("Gelu", ["x"], ["y"], name="gelu")], "g", [x], [y])
    path = tmp_path / "gelu.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    code, out, _ = run(capsys, path, "--check")
    assert code == 0
    assert "gelu" in out


def test_a_build_that_fails_leaves_neither_engine_nor_contract(model, tmp_path, capsys, monkeypatch, rtx):
    def fail(*arguments, **options):
        raise BackendError("the builder gave up")

    monkeypatch.setattr(engines, "build_in_process_of_its_own", fail)
    code, _, err = run(capsys, model, "-o", tmp_path / "a.engine", "--backend", "tensorrt-rtx")
    assert code == 1
    assert err.endswith("sfpp-engine: error: the builder gave up\n")
    assert list(tmp_path.iterdir()) == []


def test_the_sidecar_is_the_models_contract_with_what_it_was_built_for(model, tmp_path, rtx):
    report = engines.build_engine(model, tmp_path / "a.engine", backend="tensorrt-rtx")
    stored = json.loads(report.sidecar.read_text())
    original = json.loads(onnx.load(str(model)).metadata_props[0].value)
    record = stored.pop("engine")
    assert record["devices"] == []  # portable between cards
    assert stored == {name: value for name, value in original.items() if name != "engine"}
