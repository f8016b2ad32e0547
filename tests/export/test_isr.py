"""EDAFormer's inference spatial reduction, and its sibling for SegFormer."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F

from sfpp.export.catalog import ISR_VARIANTS, VARIANTS, isr_from_text, matched, variant_for, words_from_recipe
from sfpp.export.contracts import plan_for, tokens_by_block
from sfpp.export.costs import multiply_adds
from sfpp.export.deployable import Deployable
from sfpp.export.models.edaformer import AS_TRAINED, EdaDecoderConfig, EdaFormer, EdaFormerConfig, EftConfig
from sfpp.export.models.recipe import IsrRecipe, Pool2d
from sfpp.export.to_onnx import graph_from_model
from sfpp.runtime.contract import InputSpec, ModelContract, OutputSpec
from sfpp.runtime.errors import RecipeError, UsageError
from tests.export.networks import randomized

T = EdaFormerConfig(
    EftConfig((32, 64, 128, 256), (2, 2, 10, 2), (121, 243, 486, 972)), EdaDecoderConfig((128, 256, 512), 128, 19)
)
B = EdaFormerConfig(
    EftConfig((64, 128, 256, 512), (3, 3, 22, 3), (256, 512, 1024, 2048)), EdaDecoderConfig((128, 256, 512), 768, 19)
)
TINY = EdaFormerConfig(
    EftConfig((8, 16, 24, 32), (1, 1, 2, 1), (16, 32, 48, 64), heads=(1, 2, 2, 4)),
    EdaDecoderConfig((16, 24, 32), 8, 5, heads=(2, 2, 4)),
)
# arXiv 2407.17261: multiply-adds in G at 2048x1024 (width x height).
PUBLISHED = {
    "t": {"1111-111": 151.7, "1111-222": 133.6, "2211-222": 94.9, "2222-222": 59.1},
    "b": {"1111-111": 605.9, "1111-222": 569.0, "2211-222": 452.9, "2222-222": 298.1},
}


def graph_of(config, isr, height, width):
    contract = ModelContract(
        task="segmentation",
        family="edaformer",
        size="t",
        variant="isr",
        input=InputSpec("frame", height, width),
        outputs=(OutputSpec("logits", "logits", 8),),
        classes=("a",),
        palette=((0, 0, 0),),
    )
    torch.manual_seed(0)
    frame = np.zeros((1, height, width, 3), np.uint8)
    return graph_from_model(EdaFormer(config).eval(), isr_from_text(isr), contract, frame)


def test_factors_are_read_and_written():
    recipe = isr_from_text("2211-123")
    assert recipe == IsrRecipe((2, 2, 1, 1), (1, 2, 3))
    assert str(recipe) == "2211-123"
    assert words_from_recipe(recipe) == ({"isr": "2211-123"},)
    assert ISR_VARIANTS["isr"] == isr_from_text("2211-222")
    assert ISR_VARIANTS["original"] == isr_from_text("1111-111")


@pytest.mark.parametrize("text", ["", "2211", "2211-22", "22111-222", "2211-2222", "0211-222", "a211-222", "2211 222"])
def test_what_is_no_reduction(text):
    with pytest.raises(UsageError, match=r"--isr is .* such as 2211-222"):
        isr_from_text(text)


def test_each_family_has_its_own_variants():
    assert variant_for("edaformer", "isr").recipe == IsrRecipe((2, 2, 1, 1), (2, 2, 2))
    assert variant_for("edaformer", "original", "1111-222").name == "isr-1111-222"
    assert variant_for("segformer", "hq").recipe == VARIANTS["hq"]
    with pytest.raises(UsageError, match="an EDAFormer's, which merges no tokens; expected one of original, isr"):
        variant_for("edaformer", "fast")
    with pytest.raises(UsageError, match="the variant is 'fast', but these weights are an EDAFormer's"):
        variant_for("edaformer", "fast", "2222-222")
    for variant, isr in (("isr", None), ("original", "2211-222")):
        with pytest.raises(UsageError, match=r"a SegFormer's; its sibling.* --variant kv2x2"):
            variant_for("segformer", variant, isr)


def test_an_edaformer_has_nothing_to_match():
    expected = "--share-matching all .* 'isr' matches none; leave it out, or reduce with --isr"
    with pytest.raises(UsageError, match=expected):
        matched(variant_for("edaformer", "isr"), "exact", 0)


def test_tokens_are_planned_for_encoder_and_decoder():
    plan = plan_for(isr_from_text("2211-124"), TINY, InputSpec("frame", 250, 333))
    assert [stage.grid_hw for stage in plan] == [(63, 84), (32, 42), (16, 21), (8, 11), (32, 42), (16, 21), (8, 11)]
    assert [stage.key_value_grid_hw for stage in plan] == [(3, 5), (4, 5), (8, 10), (8, 11), (8, 10), (4, 5), (2, 2)]
    assert [stage.name for stage in plan] == [
        *(f"encoder stage {number}" for number in (1, 2, 3, 4)),
        *(f"decoder stage {number}" for number in (2, 3, 4)),
    ]
    assert tokens_by_block(plan)[3:5] == [(336, 80), (88, 88)]
    assert len(tokens_by_block(plan)) == 1 + 1 + 2 + 1 + 1 + 2 + 3


def test_a_factor_that_does_not_fit_names_stage_and_size():
    with pytest.raises(
        RecipeError, match=r"encoder stage 4: a reduction by 9 \(1 as trained, times 9\).* grid of 8x11"
    ):
        plan_for(isr_from_text("1119-111"), TINY, InputSpec("frame", 250, 333))
    with pytest.raises(RecipeError, match=r"decoder stage 2: a reduction by 36 .* grid of 32x42"):
        plan_for(isr_from_text("1111-911"), TINY, InputSpec("frame", 250, 333))


def test_reduction_shrinks_the_graphs_arithmetic_and_nothing_else():
    full, reduced = (multiply_adds(graph_of(TINY, isr, 128, 192)) for isr in ("1111-111", "2222-222"))
    assert reduced["MatMul"] < full["MatMul"]
    heads_free = sum(node.op_type == "Softmax" for node in graph_of(TINY, "2222-222", 128, 192).graph.node)
    assert heads_free == 11


def test_a_decoder_upsamples_as_its_config_says():
    """In the graph as in the network."""
    aligned = dataclasses.replace(TINY, decoder=dataclasses.replace(TINY.decoder, align_corners=True))
    image, answers = torch.randn(1, 3, 75, 98, generator=torch.Generator().manual_seed(1)), []
    spec = InputSpec("image", 75, 98, layout="NCHW", dtype="float32", normalized_in_graph=False)
    for config in (TINY, aligned):
        model = randomized(EdaFormer(config), seed=4)
        maps = model.head.attended(model.encoder(image, AS_TRAINED), AS_TRAINED)
        size_hw, how = maps[0].shape[2:], config.decoder.align_corners
        upsampled = (F.interpolate(each, size=size_hw, mode="bilinear", align_corners=how) for each in maps)
        expected = model.head.classifier(model.head.fusion(upsampled))
        torch.testing.assert_close(model(image), expected)
        graph = Deployable(model, AS_TRAINED, spec=spec, output="logits").eval()
        torch.testing.assert_close(graph(image), expected, rtol=1e-4, atol=1e-4)
        answers.append(expected)
    assert (answers[0] - answers[1]).abs().max() > 1e-2


def test_multiply_adds_of_a_known_graph():
    make = onnx.helper.make_node
    weight = onnx.numpy_helper.from_array(np.zeros((6, 2, 3, 3), np.float32), "w")  # 2 groups of 2 channels
    matrix = onnx.numpy_helper.from_array(np.zeros((1, 6, 8, 5), np.float32), "m")
    nodes = [make("Conv", ["x", "w"], ["y"], group=2, pads=[1] * 4), make("MatMul", ["y", "m"], ["z"])]
    value = onnx.helper.make_tensor_value_info
    inputs = [value("x", onnx.TensorProto.FLOAT, (1, 4, 7, 8))]
    outputs = [value("z", onnx.TensorProto.FLOAT, (1, 6, 7, 5))]
    graph = onnx.helper.make_graph(nodes, "known", inputs, outputs, [weight, matrix])
    model = onnx.shape_inference.infer_shapes(onnx.helper.make_model(graph))
    assert multiply_adds(model) == {"Conv": 6 * 7 * 8 * 2 * 9, "MatMul": 6 * 7 * 5 * 8}


def test_kv2x2_averages_keys_and_values_where_there_is_a_reduction():
    stages = VARIANTS["kv2x2"].stages
    assert [stage.key_value for stage in stages] == [Pool2d((2, 2))] * 3 + [None]
    assert [stage.query for stage in stages] == [None] * 4


@pytest.mark.slow
@pytest.mark.parametrize(("size", "config"), [("t", T), ("b", B)])
def test_the_published_fall_of_multiply_adds(size, config):
    """It falls as published, and stays below by the fusion convolution, which is applied before the upsampling."""
    counted = {isr: multiply_adds(graph_of(config, isr, 1024, 2048)).total() / 1e9 for isr in PUBLISHED[size]}
    offsets = [PUBLISHED[size][isr] - counted[isr] for isr in counted]
    assert max(offsets) - min(offsets) < 0.2
    assert 0 < offsets[0] < 0.035 * PUBLISHED[size]["1111-111"]
