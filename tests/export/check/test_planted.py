"""Each violation that is known to have cost a build or an answer, planted in a graph and found again."""

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from tests.export.check.graphs import (
    FLOAT,
    HALF,
    INT64,
    check,
    finding,
    labels,
    layer_norm,
    nonzero,
    one,
    outcomes,
    quantized,
    rules,
    scatter_elements,
    scatter_nd,
    topk,
)

ALL = ("8.6", "10.3", "10.13", "10.16", "11", "11.5", "rtx")
NATIVE = ("10.3", "10.13", "10.16", "11", "11.5")  # TensorRT proper, since it has int64 and reductions of its own
BUILDS, WARNS, WRONG, REFUSED = "builds", "builds, with warnings", "builds, but gives wrong results", "does not build"


def all_are(outcome, **others):
    """The outcome of every version; ``v8_6="..."`` is another for 8.6."""
    return dict.fromkeys(ALL, outcome) | {
        key.removeprefix("v").replace("_", "."): other for key, other in others.items()
    }


def clean(report):
    return not report.findings and outcomes(report) == all_are(BUILDS)


def by_version(report, rule):
    """The findings of a rule, by the versions they apply to."""
    return {each.versions: each for each in report.findings if each.rule == rule}


def test_topk_of_more_than_3840(tmp_path):
    report = check(topk(3841), tmp_path)
    found = finding(report, "topk-k")
    assert (found.name, found.operator, found.versions) == ("here/TopK", "TopK", ALL)
    assert "the 3841 largest values, and TensorRT at most 3840" in found.problem
    assert "in passes of 3840" in found.remedy
    assert outcomes(report) == all_are(REFUSED)


def test_topk_of_3840_is_fine(tmp_path):
    assert clean(check(topk(3840), tmp_path))


def test_scatter_elements_that_adds(tmp_path):
    report = check(scatter_elements("add"), tmp_path)
    found = by_version(report, "scatter-elements-reduction")
    assert {each.name for each in found.values()} == {"here/ScatterElements"}
    assert "overlooks reduction = add" in found[("8.6",)].problem
    assert "no ScatterElements with reduction = add" in found[("rtx",)].problem
    assert "runs as a plugin" in found[NATIVE].problem
    assert all("one-hot MatMul" in each.remedy for each in found.values())
    assert outcomes(report) == all_are(WARNS, v8_6=WRONG, vrtx=REFUSED)


def test_scatter_nd_that_adds(tmp_path):
    report = check(scatter_nd("add"), tmp_path)
    found = by_version(report, "scatter-nd-reduction")
    assert {each.name for each in found.values()} == {"here/ScatterND"}
    assert "overlooks reduction = add" in found[("8.6",)].problem
    assert "no ScatterND with reduction = add" in found[(*NATIVE, "rtx")].problem
    assert all("one-hot MatMul" in each.remedy for each in found.values())
    assert outcomes(report) == all_are(REFUSED, v8_6=WRONG)


@pytest.mark.parametrize("graph", [scatter_elements(None), scatter_elements("none"), scatter_nd(None)])
def test_scattering_that_replaces_is_fine(tmp_path, graph):
    assert clean(check(graph, tmp_path))


def test_gelu_of_opset_20(tmp_path):
    report = check(one("Gelu", opset=20), tmp_path)
    found = finding(report, "operator-unknown")
    assert (found.name, found.operator, found.versions) == ("here/Gelu", "Gelu", ("8.6",))
    assert found.problem == "the parser does not know the operator Gelu"
    assert found.remedy == "export with an opset below 20, which writes it with Erf"
    assert finding(report, "opset-above").versions == ("8.6",)
    assert outcomes(report) == all_are(BUILDS, v8_6=REFUSED)


@pytest.mark.parametrize(("zero_point", "dtype"), [(3, np.int8), (-1, np.int8), (128, np.uint8)])
def test_asymmetric_quantization(tmp_path, zero_point, dtype):
    report = check(quantized(zero_point=zero_point, dtype=dtype), tmp_path)
    found = [each for each in report.findings if each.rule == "zero-point"]
    assert [each.name for each in found] == ["here/QuantizeLinear", "here/d"]
    for each in found:
        assert each.versions == ALL
        assert f"its zero point is {zero_point}, and TensorRT quantizes symmetrically" in each.problem
        assert "symmetric int8 activations and weights, as sfpp-calibrate does" in each.remedy
    assert outcomes(report) == all_are(REFUSED)


def test_one_asymmetric_channel_is_enough(tmp_path):
    graph = quantized()
    wrong = next(each for each in graph.graph.initializer if each.name == "wz")
    wrong.CopyFrom(numpy_helper.from_array(np.array([0, 0, 1, 0], np.int8), "wz"))
    assert finding(check(graph, tmp_path), "zero-point").name == "here/w"


@pytest.mark.parametrize("typed", [True, False])
def test_symmetric_quantization_is_fine(tmp_path, typed):
    report = check(quantized(zero_point=0, typed=typed), tmp_path)
    # Without a zero point ONNX quantizes to uint8, which is another planted violation.
    assert clean(report) if typed else rules(report) == {"quantized-untyped"}


def test_int64_output(tmp_path):
    report = check(labels(INT64), tmp_path)
    old, new = finding(report, "int64-end"), finding(report, "int64-output")
    assert (old.name, old.versions) == ("y", ("8.6",))
    assert "becomes int32 in an engine of TensorRT 8.6" in old.problem
    assert (new.name, new.versions) == ("y", (*NATIVE, "rtx"))
    assert "eight bytes for each value" in new.problem
    assert all("cast labels to uint8 (sfpp-export --output labels)" in each.remedy for each in (old, new))
    assert outcomes(report) == all_are(WARNS)


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.INT32])
def test_labels_of_other_types_are_fine(tmp_path, kind):
    assert clean(check(labels(kind), tmp_path))


@pytest.mark.parametrize("fixed", [True, False])
def test_nonzero(tmp_path, fixed):
    report = check(nonzero(fixed), tmp_path)
    found = by_version(report, "counts-values")
    assert {(each.name, each.operator) for each in found.values()} == {("here/NonZero", "NonZero")}
    assert found[("rtx",)].problem == "TensorRT-RTX has nothing that runs NonZero"
    assert "waits for a count" in found[("8.6", *NATIVE)].problem
    assert all("keep a fixed number of values with TopK" in each.remedy for each in found.values())
    assert outcomes(report) == all_are(WARNS, vrtx=REFUSED)


@pytest.mark.parametrize("square", ["Pow", "Mul"])
def test_layer_norm_written_out_in_float16(tmp_path, square):
    report = check(layer_norm(HALF, square=square), tmp_path)
    found = finding(report, "norm-float16")
    assert (found.name, found.versions, found.severity) == ("here/ReduceMean", ALL, "warning")
    assert "known for wrong answers" in found.problem
    assert "one LayerNormalization that is computed in float32" in found.remedy
    assert "sfpp-calibrate, which keeps norms in float32" in found.remedy
    assert outcomes(report) == all_are(WARNS)


@pytest.mark.parametrize("square", ["Pow", "Mul"])
def test_layer_norm_written_out_in_float32_is_fine(tmp_path, square):
    assert clean(check(layer_norm(FLOAT, square=square), tmp_path))
