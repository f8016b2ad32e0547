"""The portable graph: what it may hold, what it answers, and whether TensorRT builds it."""

import json
from collections import Counter

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
import pytest

from sfpp.export import export_onnx
from sfpp.export.catalog import VARIANTS
from sfpp.export.lowering import merging, targets
from sfpp.export.models.recipe import partition_grid
from tests.tensorrt_rtx import CARDS, build_engine

ODD = "333x250"  # width x height: nothing divides evenly at any stage
BLOCKS = 8  # of B0
BOTH_SIDES = [
    {"q_mode": "n2d", "q_s": [2, 2], "kv_mode": "bsm", "kv_r": 0.6, "kv_sx": 2, "kv_sy": 2, "kv_size": True},
    {"q_mode": "bsm", "q_r": 0.5, "q_sx": 3, "q_sy": 2, "kv_mode": "n1d", "kv_s": 3, "kv_size": True},
    {"q_mode": "kmeans", "q_r": 0.75, "q_rounds": 3, "kv_mode": "kmeans", "kv_r": 0.9, "kv_size": True},
    {"q_mode": "bsm", "q_r": 1.0, "q_sx": 2, "q_sy": 2, "kv_mode": "bsm", "kv_r": 1.0, "kv_sx": 4, "kv_sy": 4},
]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Merging on both sides of attention, as a file."""
    path = tmp_path_factory.mktemp("recipe") / "both.json"
    path.write_text(json.dumps(BOTH_SIDES))
    return path


@pytest.fixture(scope="module")
def exported(demo_export, recipe):
    """Return the report of a variant's export."""
    return lambda variant: demo_export(variant=recipe if variant == "both" else variant, res=ODD)


ALL = [*VARIANTS, "both"]
# The recipe of both sides holds every kind of merging; what an export counts is held to its plan in every export.
QUICK = [pytest.param(each, marks=[pytest.mark.slow] * (each in ("hq+", "2x2", "downsample", "kv2x2"))) for each in ALL]


@pytest.mark.parametrize("variant", QUICK)
def test_only_operators_that_every_target_knows(exported, variant):
    model = onnx.load(exported(variant).path)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 17)]
    counts = Counter(node.op_type for node in model.graph.node)
    assert not set(counts) & {"NonZero", "Unique", "Compress", "ScatterND", "Shape", "ConstantOfShape", "Loop", "If"}
    assert counts["LayerNormalization"] == 2 * BLOCKS + 4 + 4 + 6  # blocks, embeddings, stages, spatial reductions
    assert counts["Softmax"] == BLOCKS
    assert not [node for node in model.graph.node for each in node.attribute if each.name == "reduction"]
    assert {each.type.tensor_type.elem_type for each in model.graph.output} == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize("variant", QUICK)
def test_every_tensor_has_a_static_shape_and_every_node_a_name(exported, variant):
    graph = gs.import_onnx(onnx.load(exported(variant).path))
    for node in graph.nodes:
        assert node.name
        assert not node.name.startswith("/")
        for tensor in node.outputs:
            assert tensor.shape is not None, tensor.name
            assert all(isinstance(size, int) for size in tensor.shape), tensor.name
    assert any(name.startswith("encoder/stages.2/blocks.1/attention/") for name in (n.name for n in graph.nodes))


@pytest.mark.parametrize("variant", QUICK)
def test_topk_and_scatter_stay_within_tensorrts_limits(exported, variant):
    graph = gs.import_onnx(onnx.load(exported(variant).path))
    for node in graph.nodes:
        if node.op == "TopK":
            assert int(node.inputs[1].values[0]) <= 3840
        if node.op == "ScatterElements":
            assert "reduction" not in node.attrs
            assert node.inputs[1].shape[1] <= node.inputs[0].shape[1]


def test_kmeans_takes_no_topk(exported):
    """Stages 1 and 2 of ``fast+`` choose by ArgMax over nine; what is left of TopK is for the queries of 3 and 4."""
    nodes = onnx.load(exported("fast+").path).graph.node
    early = [node.op_type for node in nodes if node.name.startswith(("encoder/stages.0", "encoder/stages.1"))]
    assert not {"TopK", "ScatterElements", "NonZero"} & set(early)
    assert early.count("ArgMax") == 2 * 2 * 2  # stages, blocks, rounds
    assert "TopK" in {node.op_type for node in nodes}


def test_constants_are_stored_once(exported):
    graph = gs.import_onnx(onnx.load(exported("hq").path))
    constants = [tensor.values for tensor in graph.tensors().values() if isinstance(tensor, gs.Constant)]
    large = [(each.dtype.str, each.shape, each.tobytes()) for each in constants if each.size > 16]
    assert len(set(large)) == len(large)
    sources = partition_grid((16, 21), (4, 4)).sources
    tables = [each for each in constants if each.dtype == np.int32 and np.array_equal(each, sources)]
    assert len(tables) == 1  # two blocks of stage 3 use it


def test_weights_are_stored_once(exported):
    parameters = 3_716_000  # SegFormer-B0 with 11 classes, batch norms folded
    assert exported("original").size_bytes < 4 * parameters * 1.02
    assert exported("hq").size_bytes < 4 * parameters * 1.03


@pytest.mark.parametrize("variant", QUICK)
def test_attention_really_sees_fewer_tokens(exported, variant):
    """Count what goes into each Softmax, apart from the exporter's own count."""
    graph = gs.import_onnx(onnx.load(exported(variant).path))
    softmaxes = [node for node in graph.nodes if node.op == "Softmax"]
    seen = [tuple(node.inputs[0].shape[2:]) for node in softmaxes]
    expected = {
        # grids 63x84, 32x42, 16x21, 8x11; keys and values 7x10, 8x10, 8x10, 8x11; half the input: from 32x42 on
        "original": [(5292, 70), (1344, 80), (336, 80), (88, 88)],
        "hq": [(5292, 28), (1344, 32), (68, 80), (18, 88)],
        "hq+": [(5292, 28), (1344, 32), (68, 80), (18, 88)],
        "fast": [(5292, 7), (1344, 8), (34, 80), (9, 88)],
        "fast+": [(5292, 6), (1344, 9), (34, 80), (9, 88)],
        "2x2": [(1344, 70), (336, 80), (88, 80), (24, 88)],
        "downsample": [(1344, 20), (336, 20), (88, 20), (24, 24)],
        "kv2x2": [(5292, 20), (1344, 20), (336, 20), (88, 88)],
        "both": [(1344, 28), (672, 27), (80, 9), (20, 4)],
    }[variant]
    assert seen == [pair for pair in expected for _ in range(2)]
    report = exported(variant)
    assert [(each.query, each.key_value) for each in report.parity.tokens] == seen


# What merges and what does not, in queries and in keys and values; the others are made of the same operators.
@pytest.mark.parametrize(
    "variant", [each if each in ("original", "both") else pytest.param(each, marks=pytest.mark.slow) for each in ALL]
)
def test_tensorrt_rtx_builds_it(exported, variant):
    assert len(build_engine(exported(variant).path)) > 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("card", CARDS[1:])
def test_tensorrt_rtx_builds_for_other_cards(exported, card):
    assert build_engine(exported("fast").path, card)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"output": "labels", "input": "float32", "batch": 2}, {"output": "labels"}, {"input": "float32"}, {"batch": 2}],
    ids=str,
)
def test_tensorrt_rtx_builds_every_input_and_output(tmp_path, options):
    report = export_onnx(path=tmp_path / "model.onnx", variant="fast", res=ODD, **options)
    assert build_engine(report.path)


@pytest.mark.parametrize(
    ("variant", "opset"),
    [
        ("both", 20),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in [("hq", 18), ("fast", 18), ("both", 18), ("hq", 20), ("fast", 20)]
        ),
    ],
)
def test_other_opsets(tmp_path, recipe, variant, opset):
    variant = recipe if variant == "both" else variant
    report = export_onnx(path=tmp_path / "model.onnx", variant=variant, res=ODD, opset=opset)
    assert onnx.load(report.path).opset_import[0].version == opset
    assert build_engine(report.path)


def test_topk_in_passes_takes_the_same_tokens(tmp_path, monkeypatch, exported):
    frame = np.random.default_rng(5).integers(0, 256, (1, 250, 333, 3), np.uint8)
    monkeypatch.setattr(merging, "TOPK_LIMIT", 7)
    report = export_onnx(path=tmp_path / "model.onnx", variant="hq", res=ODD)
    widths = [
        int(node.inputs[1].values[0]) for node in gs.import_onnx(onnx.load(report.path)).nodes if node.op == "TopK"
    ]
    assert max(widths) == 7
    assert len(widths) > 3 * BLOCKS
    np.testing.assert_allclose(run(report.path, frame), run(exported("hq").path, frame), atol=1e-4)


def test_attention_in_parts_gives_the_same_answer(tmp_path, monkeypatch, exported):
    frame = np.random.default_rng(6).integers(0, 256, (1, 250, 333, 3), np.uint8)
    monkeypatch.setattr(targets, "SCORE_BYTES_LIMIT", 100_000)
    report = export_onnx(path=tmp_path / "model.onnx", variant="hq", res=ODD)
    counts = Counter(node.op_type for node in onnx.load(report.path).graph.node)
    assert counts["Softmax"] > 2 * BLOCKS
    np.testing.assert_allclose(run(report.path, frame), run(exported("hq").path, frame), atol=1e-4)
    assert build_engine(report.path)


def test_batch_equals_singles(tmp_path, exported):
    frames = np.random.default_rng(7).integers(0, 256, (3, 250, 333, 3), np.uint8)
    report = export_onnx(path=tmp_path / "model.onnx", variant="hq", res=ODD, batch=3)
    singles = np.concatenate([run(exported("hq").path, frame[None]) for frame in frames])
    np.testing.assert_allclose(run(report.path, frames), singles, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("res", ["1920x1080", "3840x2160"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_large_sizes_export_and_build(tmp_path, variant, res):
    report = export_onnx(path=tmp_path / "model.onnx", variant=variant, res=res)
    assert not report.parity.failures()
    assert build_engine(report.path)


def run(path, frames):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"frame": frames})[0]
