"""Every rule finds its own example and leaves the graph next to it alone, and NVIDIA's builder agrees."""

import re

import numpy as np
import pytest
from onnx import helper

from sfpp.export.check.checking import FINDERS
from sfpp.export.check.findings import ALL, RELEASES, RULES
from tests.export.check.examples import EXAMPLES
from tests.export.check.graphs import FLOAT, check, finding, one, outcomes, quantized, rules, with_weights_beside

REFUSED_WHEN_BUILDING = {"NonZero", "NonMaxSuppression"}


def test_every_rule_has_an_example_and_something_that_finds_it():
    assert {each.rule for each in RULES} == {*EXAMPLES, "weights-missing"} == set(FINDERS)


def test_a_rule_tells_of_versions_that_are_known():
    assert set(RELEASES) == set(ALL)
    for each in RULES:
        assert each.versions
        assert set(each.versions) <= set(ALL)
        assert each.effect in ("refused", "wrong", "doubtful")


@pytest.mark.parametrize("rule", EXAMPLES)
def test_a_rule_tells_its_example_from_the_graph_next_to_it(rule, tmp_path):
    assert rule in rules(check(EXAMPLES[rule].wrong(), tmp_path))
    assert rule not in rules(check(EXAMPLES[rule].right(), tmp_path))


@pytest.mark.parametrize("rule", EXAMPLES)
def test_a_finding_says_where_what_to_do_and_how_it_is_known(rule, tmp_path):
    for each in check(EXAMPLES[rule].wrong(), tmp_path).findings:
        assert each.versions
        assert set(each.versions) <= set(ALL)
        assert each.name or each.rule.startswith("opset-")
        assert all(text and "{" not in text.replace("{'Quan", "") for text in (each.problem, each.remedy, each.source))


def test_each_product_that_wants_a_weights_scales_along_another_axis_is_told(tmp_path):
    graph = quantized(weight_axis=0)
    graph.graph.node.append(helper.make_node("Gemm", ["d", "w"], ["z"], name="here/gemm"))
    graph.graph.output.append(helper.make_tensor_value_info("z", FLOAT, (3, 4)))
    found = [each.problem for each in check(graph, tmp_path).findings if each.rule == "weight-axis"]
    assert [re.search(r"axis 0, and (\w+) wants 1", text)[1] for text in found] == ["MatMul", "Gemm"]


def test_a_version_is_judged_by_what_applies_to_it(tmp_path):
    report = check(EXAMPLES["scatter-nd-reduction"].wrong(), tmp_path, versions=("8.6", "rtx"))
    assert outcomes(report) == {"8.6": "builds, but gives wrong results", "rtx": "does not build"}
    assert all(version in each.versions for version in ("8.6",) for each in report.verdict(version).findings)
    assert not check(EXAMPLES["pad-wrap"].wrong(), tmp_path, versions=("rtx",)).findings


def versions_that_refuse(graph, folder):
    return [each.version for each in check(graph, folder).verdicts if each.outcome == "does not build"]


@pytest.mark.parametrize(
    ("operator", "opset", "refusing"),
    [
        ("RMSNormalization", 23, ["8.6", "10.3", "10.13"]),  # from 10.15 on, so in JetPack 7.2 and not in 7.1
        ("Swish", 24, ["8.6", "10.3", "10.13", "10.16"]),  # from 11.0 on
    ],
)
def test_an_operator_is_known_from_the_version_on_that_brought_it(tmp_path, operator, opset, refusing):
    graph = one(operator, opset=opset, inputs="xw" if operator == "RMSNormalization" else "x", w=np.ones(4, np.float32))
    assert versions_that_refuse(graph, tmp_path) == refusing
    assert "DFT" in RELEASES["11.5"].operators - RELEASES["11"].operators  # from 11.2 on
    assert (RELEASES["11"].highest_opset, RELEASES["11.5"].highest_opset) == (24, 25)


def test_a_type_of_which_the_parser_is_not_known_is_doubtful_and_not_refused(tmp_path):
    graph = EXAMPLES["type-unsure"].wrong()
    assert versions_that_refuse(graph, tmp_path) == ["8.6", "10.3", "10.13"]
    assert finding(check(graph, tmp_path), "type-unsure").versions == ("10.16", "11", "11.5")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"stored": 0}, "'weights.bin', which is not there"),
        ({"stored": 63}, "'weights.bin', which has 63 bytes where 64 are needed"),
        ({"location": "../weights.bin"}, "'../weights.bin', which is no file in the model's folder"),
        ({"location": "/etc/hostname"}, "'/etc/hostname', which is no file in the model's folder"),
    ],
)
def test_weights_that_lie_beside_the_file_must_be_there(tmp_path, options, problem):
    report = check(with_weights_beside(tmp_path, **options), tmp_path)
    found = finding(report, "weights-missing")
    assert (found.name, found.problem) == ("w", f"its values are in {problem}")
    assert set(outcomes(report).values()) == {"does not build"}


def test_weights_that_are_there_are_a_note(tmp_path):
    report = check(with_weights_beside(tmp_path), tmp_path)
    assert not report.findings
    assert any("weights.bin: keep it beside the model" in note for note in report.notes)


# Against NVIDIA's parser and builder


@pytest.fixture(scope="module")
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")


def builds(trt, path):
    """Whether TensorRT-RTX parses and builds a file for a desktop card."""
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    if not trt.OnnxParser(network, logger).parse_from_file(str(path)):
        return False
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    return builder.build_serialized_network(network, config) is not None


GATED = [name for name, example in EXAMPLES.items() if not example.only]


@pytest.mark.parametrize("rule", GATED)
@pytest.mark.parametrize("side", ["wrong", "right"])
def test_tensorrt_rtx_builds_what_is_said_to_build(rtx, rule, side, tmp_path):
    report = check(getattr(EXAMPLES[rule], side)(), tmp_path)
    assert (report.verdict("rtx").outcome != "does not build") == builds(rtx, report.model)


def test_the_operators_of_tensorrt_rtx_are_those_its_parser_knows(rtx):
    from onnx import defs

    logger = rtx.Logger(rtx.Logger.INTERNAL_ERROR)
    parser = rtx.OnnxParser(rtx.Builder(logger).create_network(0), logger)
    onnxs = {each.name for each in defs.get_all_schemas_with_history() if not each.domain}
    assert {each for each in onnxs if parser.supports_operator(each)} == RELEASES["rtx"].operators & onnxs
    assert all(parser.supports_operator(each) for each in RELEASES["rtx"].microsofts)
    assert RELEASES["rtx"].operators > REFUSED_WHEN_BUILDING
