"""What is read: files of all kinds from everywhere, and a message where one cannot be."""

import random
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import helper

from sfpp.export.check import check_model, report_text
from sfpp.runtime.contract import METADATA_KEY
from sfpp.runtime.errors import ModelFileError, UsageError
from sfpp.tooling.graph import read_model
from tests.export.check.examples import EXAMPLES
from tests.export.check.graphs import (
    FLOAT,
    branching,
    calling_a_function,
    check,
    finding,
    model,
    one,
    outcomes,
    rules,
    scatter_nd,
)


def test_only_a_file_can_be_checked(tmp_path):
    for path in (tmp_path, tmp_path / "none.onnx"):
        with pytest.raises(ModelFileError, match=r"is not a file; give the \.onnx file that is to be built"):
            check_model(path)


@pytest.mark.parametrize("content", [b"", b"junk", bytes(100), b"\x08\x0a" * 50, one("Relu").SerializeToString()[:-30]])
def test_what_is_no_model_is_refused(tmp_path, content):
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"broken\.onnx cannot be opened as an ONNX model: "):
        check_model(path)


def test_a_file_that_no_library_reads_is_refused_unread(tmp_path):
    path = tmp_path / "vast.onnx"
    with path.open("wb") as file:
        file.truncate(1 << 31)  # sparse: takes no room
    with pytest.raises(ModelFileError, match=r"has 2\.1 GB, and no library reads .* save_as_external_data=True"):
        check_model(path)


def test_a_graph_that_onnx_refuses_is_refused_with_its_words(tmp_path):
    graph = model([helper.make_node("Relu", ["nowhere"], ["y"])], {"x": (FLOAT, (1,))}, {"y": (FLOAT, (1,))})
    with pytest.raises(ModelFileError, match="nowhere"):
        check(graph, tmp_path)


@pytest.mark.parametrize("deep", [0, 1, 2])
def test_a_function_that_calls_itself_is_refused(tmp_path, deep):
    graph = calling_a_function()
    node = helper.make_node("Twice", ["a"], ["b"], domain="own.functions")
    for _ in range(deep):
        body = helper.make_graph([node], "body", [], [helper.make_tensor_value_info("b", FLOAT, (1,))])
        node = helper.make_node("If", ["a"], ["b"], then_branch=body, else_branch=body)
    graph.functions[0].node[0].CopyFrom(node)
    graph.functions[0].opset_import.add(domain="own.functions", version=1)
    words = "cannot be opened as an ONNX model: its function Twice calls itself"
    with pytest.raises(ModelFileError, match=words):
        check(graph, tmp_path)
    with pytest.raises(ModelFileError, match=words):
        read_model(tmp_path / "model.onnx")


def test_a_name_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "bytes.onnx"
    path.write_bytes(one("Relu").SerializeToString().replace(b"here/Relu", b"here\xff\xfe\xfd\xfc\xfb"))
    with pytest.raises(ModelFileError, match="a name in it is not UTF-8"):
        check_model(path)


@pytest.mark.parametrize(("length", "followed"), [(1 << 62, False), (8, True)])
def test_the_values_of_vast_rows_are_not_followed(tmp_path, monkeypatch, length, followed):
    calls, infer_shapes = [], onnx.shape_inference.infer_shapes

    def recorded(graph, **options):
        calls.append(options)
        return infer_shapes(graph, **options)

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", recorded)
    steps = [helper.make_node("Cast", ["x"], ["c"], to=FLOAT), helper.make_node("Relu", ["c"], ["y"])]
    check(model(steps, {"x": (FLOAT, (length,))}, {"y": (FLOAT, (length,))}), tmp_path)
    # For each number of a row, onnx would make an object.
    assert ({"data_prop": True} in calls) == followed


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_file_is_checked_or_refused_and_nothing_else(tmp_path, seed):
    generator = random.Random(seed)
    path = tmp_path / "damaged.onnx"
    refused, files = 0, [each.wrong().SerializeToString() for each in EXAMPLES.values()]
    for content in files:
        damaged = bytearray(content)
        for _ in range(generator.choice([1, 1, 4])):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path.write_bytes(damaged)
        try:
            report = check_model(path)
        except ModelFileError:
            refused += 1
        else:
            report_text(report)
    assert 0 < refused < len(files)


# Files from elsewhere


def test_nodes_without_names_are_named_by_what_they_write(tmp_path):
    graph = scatter_nd("add")
    graph.graph.node[0].name = ""
    report = check(graph, tmp_path)
    assert {each.name for each in report.findings} == {"y"}
    assert report.contract is None


def test_an_operator_from_elsewhere_hides_nothing_after_it(tmp_path):
    graph = scatter_nd("add")
    graph.graph.node[0].input[0] = "own"
    graph.graph.node.insert(0, helper.make_node("Blur", ["x"], ["own"], name="blur", domain="own.operators"))
    graph.opset_import.add(domain="own.operators", version=1)
    report = check(graph, tmp_path)
    assert finding(report, "operator-foreign").name == "blur"
    assert "scatter-nd-reduction" in rules(report)
    # Of an answer that would be wrong and a node that is refused, the second decides.
    assert outcomes(report)["8.6"] == "does not build"


def test_a_branch_is_checked_like_the_graph_around_it(tmp_path):
    graph = branching()
    graph.graph.node[0].attribute[0].g.node[0].op_type = "Unique"
    report = check(graph, tmp_path)
    assert finding(report, "operator-unknown").operator == "Unique"
    assert report.nodes == 3


def test_open_sizes_are_named(tmp_path):
    report = check(one("Relu", shape=("batch", 4)), tmp_path)
    assert finding(report, "dynamic-shape").name == "x"
    assert set(outcomes(report).values()) == {"builds, with warnings"}


def test_a_computed_size_is_followed(tmp_path):
    steps = [
        helper.make_node("Shape", ["x"], ["size"]),
        helper.make_node("Mul", ["size", "twice"], ["more"]),
        helper.make_node("ConstantOfShape", ["more"], ["zeros"]),
        helper.make_node("Add", ["zeros", "one"], ["y"]),
    ]
    graph = model(
        steps,
        {"x": (FLOAT, (1,) * 9)},
        {"y": (FLOAT, None)},
        twice=np.array([2] * 9),
        one=np.array(1, np.float32),
    )
    assert "dimensions" in rules(check(graph, tmp_path))


def test_an_operator_of_another_opset_is_judged_and_noted(tmp_path):
    report = check(one("Gelu", opset=17), tmp_path)
    assert outcomes(report)["rtx"] == "builds"
    assert any(
        "has no Gelu in the file's opset; other libraries may not take the file" in note for note in report.notes
    )


def test_a_suffix_does_not_say_what_a_file_is(tmp_path):
    path = tmp_path / "model.json"
    path.write_bytes(one("Relu").SerializeToString())
    assert not check_model(path).findings


def test_a_contract_that_cannot_be_read_is_a_note(tmp_path):
    graph = one("Relu")
    graph.metadata_props.add(key=METADATA_KEY, value="{broken")
    report = check(graph, tmp_path)
    assert report.contract is None
    assert any("model.onnx" in note for note in report.notes)
    assert not report.findings


def test_a_version_that_nobody_knows_is_refused_before_the_file_is_read(tmp_path):
    with pytest.raises(UsageError, match=r"version is '10\.12', expected one of 8\.6, 10\.3, 10\.13, .*, rtx.*10\.1\d"):
        check_model(tmp_path / "none.onnx", versions=("10.12",))


def test_a_version_that_is_named_twice_is_judged_once(tmp_path):
    report = check(one("Relu"), tmp_path, versions=("rtx", "8.6", "rtx"))
    assert [each.version for each in report.verdicts] == ["rtx", "8.6"]


# What it costs to import


def test_the_import_loads_nothing_heavy():
    code = "import sys, sfpp.export.check; print({'onnx', 'onnxruntime', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_without_onnx_the_extra_is_named():
    code = """
import sys
sys.modules["onnx"] = None
from sfpp.runtime.errors import MissingDependencyError
try:
    from sfpp.export.check import check_model
except MissingDependencyError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "checking a model for TensorRT needs onnx" in done.stdout
    assert "pip install 'sfpp[export]'" in done.stdout
