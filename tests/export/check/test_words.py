"""A report as text."""

from dataclasses import replace

import pytest
from onnx import helper

from sfpp.export.check import report_text
from sfpp.runtime.contract import METADATA_KEY, InputSpec, ModelContract, OutputSpec
from tests.export.check.graphs import FLOAT, HALF, check, model, one, quantized, scatter_elements, topk

CONTRACT = ModelContract(
    task="segmentation",
    family="segformer",
    size="b0",
    variant="hq",
    input=InputSpec(name="x", height=64, width=96),
    outputs=(OutputSpec(name="y", kind="logits", stride=4),),
    classes=("road",),
    palette=((0, 0, 0),),
)
ISR = replace(CONTRACT, family="edaformer", size="t", variant="isr", recipe=({"isr": "2211-222"}, {}, {}, {}))


def own(graph, contract=CONTRACT):
    graph.metadata_props.add(key=METADATA_KEY, value=contract.to_json())
    return graph


def chain(operator, count):
    """So many nodes of one operator, one after the other."""
    names = ["x", *(f"t{number}" for number in range(1, count)), "y"]
    nodes = [
        helper.make_node(operator, [names[number]], [names[number + 1]], name=f"layers/{number}")
        for number in range(count)
    ]
    return model(nodes, {"x": (FLOAT, (1, 4))}, {"y": (FLOAT, (1, 4))}, opset=20)


def next_of(graph, folder, **options):
    lines = report_text(check(graph, folder, **options)).splitlines()
    assert lines[-2] == ""
    assert lines[-1].startswith("next: ")
    return lines[-1].removeprefix("next: ").replace(str(folder / "model.onnx"), "MODEL")


def test_the_table_has_a_line_for_each_version(tmp_path):
    lines = report_text(check(scatter_elements("add"), tmp_path)).splitlines()
    assert lines[0] == "model.onnx: no contract"
    assert lines[1].startswith("  opset 17, 1 node, float32, 0.0 MB")
    assert lines[3:10] == [
        "TensorRT 8.6    JetPack 6.0              builds, but gives wrong results (1 error)",
        "TensorRT 10.3   JetPack 6.1, 6.2         builds, with warnings (1 warning)",
        "TensorRT 10.13  JetPack 7.0, 7.1         builds, with warnings (1 warning)",
        "TensorRT 10.16  JetPack 7.2, 7.2.1       builds, with warnings (1 warning)",
        "TensorRT 11     JetPack 7.2.2, desktops  builds, with warnings (1 warning)",
        "TensorRT 11.5   desktops, CUDA 13.5      builds, with warnings (1 warning)",
        "TensorRT-RTX    desktop RTX cards        does not build (1 error)",
    ]


def test_a_finding_says_where_what_to_do_and_how_it_is_known(tmp_path):
    text = report_text(check(topk(3841), tmp_path))
    lines = text[text.index("error:") :].splitlines()
    assert lines[0] == "error: not built by TensorRT 8.6, 10.3, 10.13, 10.16, 11, 11.5 and TensorRT-RTX"
    assert lines[1] == "  it takes the 3841 largest values, and TensorRT at most 3840"
    assert lines[2] == "    at here/TopK (TopK)"
    assert lines[3].startswith("  do: take them in passes of 3840")
    assert lines[4].startswith("  known from: ")


def test_what_is_built_and_wrong_is_not_called_unbuilt(tmp_path):
    text = report_text(check(scatter_elements("add"), tmp_path))
    assert "error: wrong results in TensorRT 8.6\n" in text
    assert "error: not built by TensorRT-RTX\n" in text
    assert "warning: TensorRT 10.3, 10.13, 10.16, 11, 11.5\n" in text


def test_200_equal_findings_are_a_few_lines(tmp_path):
    report = check(chain("Gelu", 200), tmp_path, versions=("8.6",))
    text = report_text(report)
    assert sum(each.rule == "operator-unknown" for each in report.findings) == 200
    assert [line for line in text.splitlines() if "layers/" in line] == [
        f"    at layers/{number} (Gelu)" for number in range(3)
    ]
    assert "    and 197 more\n" in text
    assert len(text.splitlines()) < 25


def test_findings_of_one_rule_that_differ_are_told_side_by_side(tmp_path):
    graph = chain("Bernoulli", 5)
    graph.graph.node[3].op_type = "Det"
    text = report_text(check(graph, tmp_path, versions=("rtx",)))
    lines = text[text.index("error:") :].splitlines()
    assert lines[1:4] == [
        "    layers/0 (Bernoulli): the parser does not know the operator Bernoulli",
        "    layers/3 (Det): the parser does not know the operator Det",
        "    and 3 more",
    ]


def test_a_name_cannot_command_the_terminal(tmp_path):
    graph = topk(3841)
    graph.graph.node[0].name = "\x1b[2J" + "n" * 500
    text = report_text(check(graph, tmp_path))
    assert "\x1b" not in text
    assert "n" * 90 in text
    assert "n" * 110 not in text


# What to do next


def test_next_for_a_foreign_file(tmp_path):
    assert next_of(one("Relu"), tmp_path) == (
        "trtexec --onnx=MODEL --saveEngine=model.engine   (before TensorRT 10.15: /usr/src/tensorrt/bin/trtexec)"
    )
    assert next_of(topk(3841), tmp_path) == "change what is named above, and check the file again"


def test_next_for_our_own_float32_file(tmp_path):
    assert next_of(own(one("Relu")), tmp_path).startswith("sfpp-calibrate MODEL --images FRAMES ")


def test_next_for_our_own_converted_file(tmp_path):
    half = one("Relu", kind=HALF)
    assert next_of(own(half), tmp_path) == "sfpp-engine MODEL"
    assert next_of(own(quantized()), tmp_path) == "sfpp-engine MODEL"


@pytest.mark.parametrize(
    ("contract", "options"),
    [
        (CONTRACT, "--variant hq"),
        (replace(CONTRACT, matching="local", share_matching=0), "--variant hq --matching local --share-matching all"),
        (replace(CONTRACT, variant="it's"), "--variant 'it'\"'\"'s.json'"),
        (ISR, "--isr 2211-222"),
    ],
)
def test_next_for_our_own_file_that_does_not_build(tmp_path, contract, options):
    command = f"sfpp-export --weights FILE {options} --target tensorrt --opset 17 --res 96x64   (make it anew)"
    assert next_of(own(topk(3841), contract), tmp_path) == command


def test_next_for_our_own_int8_file_depends_on_what_was_asked(tmp_path):
    graph = own(quantized(half=True, opset=19))  # float16 scales, which 8.6 does not take
    again = "sfpp-calibrate FLOAT32.onnx --images FRAMES --rest fp32   (make it anew)"
    assert next_of(graph, tmp_path) == "sfpp-engine MODEL"
    assert next_of(graph, tmp_path, versions=("8.6",)) == again


def test_notes_say_what_is_no_finding(tmp_path):
    assert "note: everything is float32 in the file" in report_text(check(one("Relu"), tmp_path))
    assert "note: " not in report_text(check(one("Relu", kind=HALF), tmp_path))
