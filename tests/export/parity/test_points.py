"""Points that both sides have: found by name in every graph, split into runs that fit the memory."""

import onnx
import pytest

from sfpp.export.models.recipe import NO_MERGING, MergingRecipe
from sfpp.export.models.segformer import EncoderConfig, HeadConfig, SegFormer, SegFormerConfig
from sfpp.export.parity.points import INPUT, LOGITS, Point, all_points, coarse_points, node_path, part_of
from sfpp.export.parity.probed_model import groups_of, tensors_of
from sfpp.export.parity.reference import reference_for
from tests.export.parity.planted import contract_of


def points_and_tensors(exported):
    graph = onnx.load(exported.path)
    contract = contract_of(graph)
    reference = reference_for(contract, exported.weights)
    points = all_points(reference.network, reference.recipe, contract.input.size_hw)
    return points, tensors_of(graph, points, contract.outputs[0].name), graph


@pytest.mark.parametrize("name", ["fast", "original", "pose", "edaformer"])
def test_every_point_is_in_our_graphs(exported, name):
    points, tensors, graph = points_and_tensors(exported(name))
    assert [point.name for point in points if point.name not in tensors] == []
    known = {each for node in graph.graph.node for each in node.output}
    assert all(tensor in known for names in tensors.values() for tensor in names)
    assert (points[0].name, points[-1].name) == (INPUT, LOGITS)
    assert tensors[LOGITS] == [graph.graph.output[0].name]


def test_names_are_those_of_the_modules():
    assert node_path("encoder.stages.0.blocks.1.norm2") == "encoder/stages.0/blocks.1/norm2"
    assert node_path("head.stages.2.0.ffn.expand") == "head/stages.2.0/ffn/expand"
    assert part_of("stages.1/blocks.0/attention/query") == "stages.1/blocks.0/attention"
    assert part_of("head/stages.1.0/ffn/norm2") == "head/stages.1.0/ffn"
    assert part_of("stages.1/blocks.0/ffn") == "stages.1/blocks.0/ffn"


def test_layers_stand_before_the_part_that_they_lie_in():
    network = SegFormer(
        SegFormerConfig(EncoderConfig((8, 8, 8, 8), (1, 2, 1, 1), (1, 2, 2, 2)), HeadConfig("mmseg", 8, 3))
    )
    coarse = coarse_points(network, NO_MERGING, (64, 96))
    every = all_points(network, NO_MERGING, (64, 96))
    assert [point for point in every if not point.detail] == coarse
    names = [point.name for point in every]
    inside = names[names.index("stages.1/blocks.0/ffn") + 1 : names.index("stages.1/blocks.1/attention")]
    assert [name.removeprefix("stages.1/blocks.1/attention/") for name in inside] == [
        "norm1",
        "reduction",
        "reduction_norm",
        "merging of queries",
        "merging of keys and values",
        "query",
        "key_value",
        "softmax and products",
        "output",
    ]
    assert len(names) == len(set(names))


def test_grids_follow_the_size_and_the_step():
    network = SegFormer(
        SegFormerConfig(EncoderConfig((8, 8, 8, 8), (1, 1, 1, 1), (1, 2, 2, 2)), HeadConfig("official", 8, 3))
    )
    grids = {point.name: point.grid_hw for point in coarse_points(network, MergingRecipe(input_step=2), (128, 192))}
    assert (grids["stages.0/norm"], grids["stages.3/norm"]) == ((16, 24), (2, 3))
    assert "head/projections.0" not in grids  # a linear projection has no counterpart in the graph


def test_logits_are_found_behind_labels_and_conversions():
    helper = onnx.helper
    nodes = [
        helper.make_node("Relu", ["x"], ["small"]),
        helper.make_node("QuantizeLinear", ["small", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Resize", ["d"], ["large"]),
        helper.make_node("ArgMax", ["large"], ["index"]),
        helper.make_node("Cast", ["index"], ["labels"]),
    ]
    graph = helper.make_graph(nodes, "graph", [], [])
    assert tensors_of(onnx.helper.make_model(graph), [Point(LOGITS, "", "output", "")], "labels") == {LOGITS: ["small"]}


def test_a_value_in_several_nodes_is_put_together_in_their_order():
    nodes = [onnx.helper.make_node("Relu", ["x"], [f"y{n}"], name=name) for n, name in enumerate(
        ["head/Relu_10", "head/Relu", "head/Relu_2", "head/Relu_1", "other/head/Relu_3"])]  # fmt: skip
    graph = onnx.helper.make_graph(nodes, "graph", [], [])
    point = Point("head/fusion", "head.fusion", "output", "head/Relu", parts=True)
    assert tensors_of(onnx.helper.make_model(graph), [point], "x")["head/fusion"] == ["y1", "y3", "y2", "y0"]


def test_groups_keep_to_the_limit_and_carry_what_they_need():
    points = [
        Point("a", "", "output", "", lasting=True),
        Point("b", "", "output", "", base="a"),
        Point("c", "", "output", ""),
        Point("d", "", "output", "", base="b"),
        Point("e", "", "output", ""),
    ]
    groups = groups_of(points, dict.fromkeys("abcde", 10), limit=20)
    assert [[point.name for point in group.points] for group in groups] == [["a", "b"], ["c", "d"], ["e"]]
    # what lasts, what was added to, and what comes right before
    assert [[point.name for point in group.carried] for group in groups] == [[], ["a", "b"], ["a", "d"]]
    assert len(groups_of(points, {}, limit=1)) == 1
    assert len(groups_of(points, dict.fromkeys("abcde", 99), limit=1)) == 5


def test_edaformers_decoder_adds_to_the_encoders_maps(exported):
    points, _, _ = points_and_tensors(exported("edaformer"))
    bases = {point.name: point.base for point in points}
    assert bases["head/stages.1.0/attention"] == "stages.2/norm"
    assert bases["head/stages.1.1/attention"] == "head/stages.1.0/ffn"
