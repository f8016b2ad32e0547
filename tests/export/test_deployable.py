"""The network rewritten for a graph is the same function as the learned one."""

import io
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
import torch.nn.functional as F

from sfpp.export import deployable
from sfpp.export.deployable import Deployable, RewrittenHead, conv_1x1, folded_batch_norm
from sfpp.export.lowering import merging, targets
from sfpp.export.lowering.passes import lowered
from sfpp.export.lowering.symbolic import trace_to_onnx
from sfpp.export.models.recipe import NO_MERGING, Bipartite, MergingRecipe, Pool2d, StageRecipe, pooled_grid
from sfpp.export.models.segformer import EncoderConfig, HeadConfig, MixFfn, SegFormer, SegFormerConfig
from sfpp.export.models.token_merging import merge_tokens, unmerge_windows
from sfpp.runtime.contract import InputSpec
from tests.export.networks import randomized

TINY = EncoderConfig(
    channels=(6, 8, 12, 20), depths=(1, 2, 1, 1), heads=(1, 2, 3, 5), reductions=(4, 3, 2, 1), expansions=(2, 4, 3, 2)
)
HEIGHT, WIDTH = 75, 98
FRAMES = InputSpec("frame", HEIGHT, WIDTH, batch=2, mean=(90.0, 120.0, 150.0), std=(40.0, 60.0, 80.0))
IMAGES = InputSpec("image", HEIGHT, WIDTH, batch=2, layout="NCHW", dtype="float32", normalized_in_graph=False)
RECIPES = {
    "original": NO_MERGING,
    "downsample": MergingRecipe(input_step=2),
    "both sides": MergingRecipe((StageRecipe(Bipartite(0.5, (2, 2)), Pool2d((2, 2))),) * 3 + (StageRecipe(),)),
}


@pytest.fixture(autouse=True)
def _in_float64():
    """Modules made in a test are float64, so that only wrong arithmetic shows, not rounding."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def learned(kind="mmseg", **head):
    return randomized(SegFormer(SegFormerConfig(TINY, HeadConfig(kind, width=10, classes=5, **head))), seed=21)


class Unmerged(torch.nn.Module):
    """The learned model with an image alone as its argument, as a trace needs it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image):
        return self.model(image)


def random_frames():
    return torch.from_numpy(np.random.default_rng(22).integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8))


def normalized(frames):
    """(batch, 3, height, width), one channel at a time."""
    channels = [(frames[..., i].double() - FRAMES.mean[i]) / FRAMES.std[i] for i in range(3)]
    return torch.stack(channels, 1)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("kind", ["official", "mmseg"])
@pytest.mark.parametrize("align_corners", [False, True], ids=["half pixels", "aligned corners"])
def test_logits_equal_those_of_the_learned_model(kind, recipe, align_corners):
    model, frames = learned(kind, align_corners=align_corners), random_frames()
    deployable = Deployable(model, recipe, spec=FRAMES, output="logits")
    expected = model(normalized(frames), recipe)
    assert expected.std() > 0.1
    torch.testing.assert_close(deployable(frames), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_images_are_taken_as_they_are(recipe):
    torch.set_default_dtype(torch.float32)
    model, image = learned(), normalized(random_frames()).float()
    deployable = Deployable(model, recipe, spec=IMAGES, output="logits")
    torch.testing.assert_close(deployable(image), model(image, recipe), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("align_corners", [False, True], ids=["half pixels", "aligned corners"])
def test_labels_are_the_best_class_at_the_input_size(recipe, align_corners):
    model, frames = learned(align_corners=align_corners), random_frames()
    # Else one class is the best everywhere.
    model.head.classifier.bias -= model(normalized(frames), recipe).mean((0, 2, 3))
    labels = Deployable(model, recipe, spec=FRAMES, output="labels", align_corners=align_corners)(frames)
    logits = model(normalized(frames), recipe)
    raised = F.interpolate(logits, size=(HEIGHT, WIDTH), mode="bilinear", align_corners=align_corners)
    assert (labels.shape, labels.dtype) == ((2, HEIGHT, WIDTH), torch.uint8)
    assert torch.equal(labels, raised.argmax(1).to(torch.uint8))
    assert len(labels.unique()) > 2


@pytest.mark.parametrize("kind", ["official", "mmseg"])
def test_the_learned_model_is_left_alone(kind):
    model = learned(kind)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    scales = [block.attention.scale for stage in model.encoder.stages for block in stage.blocks]
    deployable = Deployable(model, NO_MERGING, spec=FRAMES, output="logits")
    with torch.no_grad():
        for tensor in [*deployable.parameters(), *deployable.buffers()]:
            tensor.zero_()
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert [block.attention.scale for stage in model.encoder.stages for block in stage.blocks] == scales
    assert all(type(block.ffn) is MixFfn for stage in model.encoder.stages for block in stage.blocks)


def test_a_learned_model_makes_any_number_of_deployables():
    model, frames = learned(), random_frames()
    first, second = (Deployable(model, NO_MERGING, spec=FRAMES, output="logits") for _ in range(2))
    assert torch.equal(first(frames), second(frames))


@pytest.mark.parametrize("kind", ["official", "mmseg"])
def test_the_head_fuses_before_it_raises(kind):
    """No convolution of the head works on the concatenated channels, and an official stage is one matrix."""
    head = RewrittenHead(learned(kind).head, parts=1)
    stages = [
        [conv.in_channels for conv in (*projection.modules(), fused) if isinstance(conv, torch.nn.Conv2d)]
        for projection, fused in zip(head.projections, head.parts[0][:-1], strict=True)
    ]
    assert stages == [[count] if kind == "official" else [count, 10] for count in TINY.channels]
    # The bias is added once, by the convolution that is not raised.
    assert [conv.bias is not None for conv in head.parts[0]] == [True, False, False, False, True]


@pytest.mark.parametrize("kind", ["official", "mmseg"])
@pytest.mark.parametrize("parts", [2, 3, 10])
def test_a_head_in_parts_answers_as_one(kind, parts):
    features = [torch.randn(2, count, 12 // 2**level, 8 // 2**level) for level, count in enumerate(TINY.channels)]
    head = RewrittenHead(learned(kind).head, parts=parts)
    assert sum(part[-1].in_channels for part in head.parts) == 10
    assert len(head.parts) == parts
    expected = RewrittenHead(learned(kind).head)(features)
    torch.testing.assert_close(head(features), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("limit", "parts"), [(10 * 16 * 20 * 4, 1), (10 * 16 * 20 * 4 - 1, 2), (1, 10)])
def test_no_map_of_the_head_is_larger_than_the_limit(monkeypatch, limit, parts):
    monkeypatch.setattr(deployable, "HEAD_BYTES_LIMIT", limit)
    spec = InputSpec("frame", 64, 80)
    made = Deployable(learned("official"), NO_MERGING, spec=spec, output="logits")
    assert len(made.head.parts) == parts
    assert len(Deployable(learned("official"), NO_MERGING, spec=spec, output="logits", head_parts=4).head.parts) == 4


@pytest.mark.parametrize("kind", ["official", "mmseg"])
def test_a_batch_norm_folds_into_its_convolution(kind):
    unit, image = learned(kind).head.fusion, torch.randn(2, 40, 3, 4)
    weight, bias = folded_batch_norm(unit)
    torch.testing.assert_close(F.conv2d(image, weight, bias), unit.bn(unit.conv(image)), rtol=1e-12, atol=1e-12)


def test_a_pointwise_convolution_takes_matrices_of_either_form():
    weight, bias, image = torch.randn(3, 4), torch.randn(3), torch.randn(1, 4, 2, 5)
    expected = torch.einsum("oi,bihw->bohw", weight, image)
    torch.testing.assert_close(conv_1x1(weight, None)(image), expected)
    torch.testing.assert_close(conv_1x1(weight[:, :, None, None], bias)(image), expected + bias.reshape(-1, 1, 1))


@pytest.mark.parametrize(("limit", "parts"), [(50_000, 5), (25_000, 6), (5_000, 10 + 2 * 3 + 1 + 1)])
def test_attention_with_a_scale_of_its_own_lowers_too(monkeypatch, limit, parts):
    """A learned model still carries the factor that a deployable one has in its query weights."""
    monkeypatch.setattr(targets, "SCORE_BYTES_LIMIT", limit)  # in parts, with the last one shorter
    torch.set_default_dtype(torch.float32)
    model, image = Unmerged(learned().float()).eval(), torch.randn(1, 3, HEIGHT, WIDTH)
    graph = lowered(trace_to_onnx(model, image, names=("image", "logits"), opset=17), "portable")
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    assert sum(node.op_type == "Softmax" for node in graph.graph.node) == parts
    np.testing.assert_allclose(session.run(None, {"image": image.numpy()})[0], model(image).numpy(), atol=2e-4)


class MergeAndBack(torch.nn.Module):
    """Queries merged and copied back; each answer tells its row, so that a mix-up of rows shows."""

    def __init__(self, grid_hw, merging):
        super().__init__()
        self.grid_hw, self.merging = grid_hw, merging

    def forward(self, tokens):
        merged, copy_back, _ = merge_tokens(tokens, self.grid_hw, self.merging)
        return 2 * copy_back(merged)


def lowered_answer(module, tokens):
    """The graph's answer to the tokens, and the sizes of its TopK nodes."""
    graph = lowered(trace_to_onnx(module.eval(), tokens, names=("tokens", "back"), opset=17), "portable")
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in graph.graph.initializer}
    widths = [constants[node.input[1]].item() for node in graph.graph.node if node.op_type == "TopK"]
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"tokens": tokens.numpy()})[0], widths


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("grid_hw", "cell_hw", "ratio", "widths"),
    [
        ((6, 8), (2, 2), 0.5, [1, 12]),
        ((7, 9), (2, 3), 0.1, [1, 20, 20, 8]),
        ((5, 7), (3, 2), 1.0, [1]),
        ((9, 6), (2, 2), 0.375, [1, 20, 2]),
    ],
)
def test_lowered_merging_equals_torchs(monkeypatch, grid_hw, cell_hw, ratio, widths, batch, local):
    monkeypatch.setattr(merging, "TOPK_LIMIT", 20)
    torch.set_default_dtype(torch.float32)
    tokens = torch.randn(batch, grid_hw[0] * grid_hw[1], 8, generator=torch.Generator().manual_seed(24))
    module = MergeAndBack(grid_hw, Bipartite(ratio, cell_hw, local))
    answer, sizes = lowered_answer(module, tokens)
    np.testing.assert_allclose(answer, module(tokens), atol=1e-5)
    assert sizes == widths


def test_more_than_3840_tokens_are_kept_in_two_passes():
    """So little is merged that more tokens stay than one TopK of TensorRT may take."""
    torch.set_default_dtype(torch.float32)
    tokens = torch.randn(1, 6400, 8, generator=torch.Generator().manual_seed(23))
    module = MergeAndBack((80, 80), Bipartite(300 / 6400, (2, 2)))
    answer, widths = lowered_answer(module, tokens)
    assert widths == [1, 3840, 660]  # the best partner, then 4500 of 4800 sources
    rows_equal = np.isclose(answer, module(tokens), atol=1e-5).all(-1)
    assert rows_equal.mean() > 0.999  # where two similarities are equal up to rounding, another one may be merged


@pytest.mark.parametrize("batch", [1, 3])
def test_tokens_are_gathered_by_indices_of_two_axes(batch):
    """No Reshape of what was computed stands before or behind: the TensorFlow Lite converter loses track there."""
    torch.set_default_dtype(torch.float32)
    tokens = torch.randn(batch, 48, 8)
    graph = lowered(
        trace_to_onnx(MergeAndBack((6, 8), Bipartite(0.5, (2, 2))), tokens, names=("tokens", "back"), opset=17),
        "portable",
    ).graph
    shapes = {each.name: [size.dim_value for size in each.type.tensor_type.shape.dim] for each in graph.value_info}
    constants = {each.name for each in graph.initializer}
    gathers = {node.name: node for node in graph.node if node.op_type == "Gather" and node.input[1] not in constants}
    assert {name.rpartition("/")[2]: shapes[node.output[0]] for name, node in gathers.items()} == {
        "kept_tokens": [batch, 12, 8],
        "unmerged": [batch, 48, 8],
    }
    writers = {output: node.op_type for node in graph.node for output in node.output}
    assert not [name for name, node in gathers.items() if writers[node.input[1]] == "Reshape"]


class EveryCopyBack(torch.nn.Module):
    """Pooled tokens copied back to grids of ``window`` to 200 rows and as many columns fewer than 200."""

    def __init__(self, window):
        super().__init__()
        self.window_hw = (window, window)
        self.grids = [(rows, 200 + window - rows) for rows in range(window, 201)]

    def forward(self, tokens):
        """Return (1, all positions of all grids, 1) of numbered tokens, of which each grid takes the first."""
        counts = [rows * columns for rows, columns in (pooled_grid(grid, self.window_hw) for grid in self.grids)]
        parts = [
            unmerge_windows(tokens[:, :count], *grid, *pooled_grid(grid, self.window_hw))
            for grid, count in zip(self.grids, counts, strict=True)
        ]
        return torch.cat(parts, 1)


@pytest.mark.parametrize(
    "window", [2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_windows_are_copied_back_exactly_on_every_grid(window):
    """In integers, against what resizing in float32 makes of it; where that is wrong a Gather stands instead."""
    torch.set_default_dtype(torch.float32)
    module, expected = EveryCopyBack(window).eval(), []
    for rows, columns in module.grids:
        pooled_rows, pooled_columns = -(-rows // window), -(-columns // window)
        row, column = np.divmod(np.arange(rows * columns), columns)
        expected.append(row * pooled_rows // rows * pooled_columns + column * pooled_columns // columns)
    tokens = torch.arange(200.0 * 200).reshape(1, -1, 1)
    graph = lowered(trace_to_onnx(module, tokens, names=("tokens", "back"), opset=17), "portable")
    counts = Counter(node.op_type for node in graph.graph.node)
    assert len(module.grids) - counts["Resize"] == {2: 0, 3: 4, 4: 2}[window]
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    core = openvino.Core()
    read = core.read_model(io.BytesIO(graph.SerializeToString()))
    compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answers = [module(tokens).numpy(), session.run(None, {"tokens": tokens.numpy()})[0], compiled(tokens.numpy())[0]]
    for answer in answers:
        np.testing.assert_array_equal(answer.ravel(), np.concatenate(expected))
