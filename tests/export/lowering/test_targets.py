"""The same function for every target: each in its own operators, and on every backend that takes it."""

import io
from collections import Counter

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
import openvino
import pytest
import torch

from sfpp.export import export_onnx
from sfpp.export.catalog import MIT_SIZES, VARIANTS
from sfpp.export.costs import activation_bytes, live_bytes, multiply_adds
from sfpp.export.deployable import Deployable
from sfpp.export.lowering import symbolic, targets
from sfpp.export.lowering.passes import LOWERINGS, lowered
from sfpp.export.lowering.symbolic import trace_to_onnx
from sfpp.export.models.recipe import with_matching
from sfpp.export.models.segformer import EncoderConfig, HeadConfig, SegFormer, SegFormerConfig
from sfpp.runtime.backends import BackendOptions, OpenVinoBackend
from sfpp.runtime.contract import InputSpec
from sfpp.runtime.errors import UsageError
from tests.export.networks import randomized
from tests.tensorrt_rtx import build_engine

ODD = "333x250"  # width x height: nothing divides evenly at any stage
CASES = [("original", "exact"), ("hq", "local"), ("fast+", "local"), ("fast", "exact")]
# Golden cases, too, go through ONNX Runtime's own graph.
QUICK = [*CASES[:3], pytest.param(*CASES[3], marks=pytest.mark.slow)]
DISTINCT = ["portable", "onnxruntime"]


@pytest.fixture(scope="module")
def exported(demo_export):
    """Return the report of an export."""
    return lambda variant, matching, target: demo_export(variant=variant, matching=matching, target=target, res=ODD)


def frame():
    return np.random.default_rng(5).integers(0, 256, (1, 250, 333, 3), np.uint8)


def in_onnxruntime(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"frame": frame()})[0]


def in_openvino(path):
    backend = OpenVinoBackend(path, BackendOptions(precision="fp32", cache=False))
    return backend.run({"frame": frame()})["logits"]


def assert_alike(answer, expected):
    """Near ties may be settled differently by another order of summation; all else is equal up to rounding."""
    difference = np.abs(answer - expected)
    assert np.mean(answer.argmax(1) == expected.argmax(1)) > 0.995
    assert np.median(difference) < 1e-4


def test_openvino_and_tensorrt_take_the_portable_graph():
    same = [name for name, lowerings in LOWERINGS.items() if lowerings is LOWERINGS["portable"]]
    assert same == ["portable", "openvino", "tensorrt"]
    assert [name for name in LOWERINGS if name == "portable" or name not in same] == DISTINCT


@pytest.mark.parametrize(("variant", "matching"), QUICK)
def test_onnxruntimes_graph_answers_as_the_portable_one(exported, variant, matching):
    expected = in_onnxruntime(exported(variant, matching, "portable").path)
    assert_alike(in_onnxruntime(exported(variant, matching, "onnxruntime").path), expected)


@pytest.mark.parametrize(("variant", "matching"), QUICK)
def test_openvino_answers_as_onnxruntime(exported, variant, matching):
    path = exported(variant, matching, "portable").path
    assert_alike(in_openvino(path), in_onnxruntime(path))


def test_tensorrt_builds_local_matching(exported):
    assert len(build_engine(exported("hq", "local", "portable").path)) > 1_000_000


@pytest.mark.parametrize(("variant", "matching"), QUICK)
def test_onnxruntimes_graph_has_fused_attention_and_no_score_matrix(exported, variant, matching):
    model = onnx.load(exported(variant, matching, "onnxruntime").path)
    assert {each.domain: each.version for each in model.opset_import} == {"": 17, "com.microsoft": 1}
    counts = Counter(node.op_type for node in model.graph.node)
    assert counts["MultiHeadAttention"] == 8
    assert counts["Softmax"] == 0
    assert {node.domain for node in model.graph.node} == {"", "com.microsoft"}


@pytest.mark.parametrize("target", DISTINCT)
def test_the_tokens_are_counted_in_every_target(exported, target):
    report = exported("hq", "local", target)
    assert report.contract.matching == "local"
    tokens = report.parity.tokens
    # grids 63x84, 32x42, 16x21, 8x11; keys and values on 7x10, 8x10, 8x10, 8x11
    expected = [(5292, 28), (1344, 32), (68, 80), (18, 88)]
    assert [(each.query, each.key_value) for each in tokens] == [pair for pair in expected for _ in range(2)]


@pytest.mark.parametrize(
    "target", [each if each in DISTINCT else pytest.param(each, marks=pytest.mark.slow) for each in LOWERINGS]
)
def test_the_contract_says_what_the_graph_is(exported, target):
    report = exported("hq", "local", target)
    contract = report.contract
    assert (contract.matching, contract.share_matching, contract.target) == ("local", 1, target)
    assert contract.multiply_adds == multiply_adds(onnx.load(report.path)).total()
    assert contract.activation_bytes == activation_bytes(onnx.load(report.path))
    assert contract.live_bytes == live_bytes(onnx.load(report.path))


@pytest.mark.parametrize(
    ("variant", "output", "opset"), [("original", "logits", 17), ("hq", "labels", 17), ("kv2x2", "logits", 20)]
)
def test_a_trace_without_values_is_the_trace_of_a_run(monkeypatch, variant, output, opset):
    torch.manual_seed(0)
    config = SegFormerConfig(EncoderConfig((8, 8, 16, 16), (1, 1, 1, 1), (1, 2, 2, 4)), HeadConfig("mmseg", 12, 5))
    spec = InputSpec("frame", height=150, width=130)
    module = Deployable(randomized(SegFormer(config), seed=1), VARIANTS[variant], spec=spec, output=output).eval()
    names, example = ("frame", output), torch.zeros(spec.shape, dtype=torch.uint8)
    graph = trace_to_onnx(module, example, names=names, opset=opset)
    monkeypatch.setattr(symbolic, "_hollowed", lambda module, thread: module)
    expected = trace_to_onnx(module, example, names=names, opset=opset)
    assert graph.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)


def test_a_trace_computes_nothing():
    """Of a frame as large as no machine could hold in float32."""
    config = SegFormerConfig(EncoderConfig((8, 8, 8, 8), (1, 1, 1, 1), (1, 1, 1, 1)), HeadConfig("official", 8, 2))
    spec = InputSpec("frame", height=2**17, width=2**18)
    module = Deployable(SegFormer(config).eval(), VARIANTS["original"], spec=spec, output="logits").eval()
    frame = torch.empty(1, dtype=torch.uint8).expand(spec.shape)
    graph = trace_to_onnx(module, frame, names=("frame", "logits"), opset=17)
    sides = graph.graph.output[0].type.tensor_type.shape.dim
    assert [side.dim_value for side in sides] == [1, 2, 2**15, 2**16]


def test_large_attention_is_in_parts(monkeypatch, tmp_path):
    """In one piece the scores of a 4K frame would take 17 GB wherever they are not fused, as in ONNX Runtime."""
    monkeypatch.setattr(targets, "SCORE_BYTES_LIMIT", 500_000)
    report = export_onnx(path=tmp_path / "model.onnx", res=ODD)
    names = [node.name for node in onnx.load(report.path).graph.node]
    assert sum(name.startswith("encoder/stages.0/blocks.0/attention/scores_") for name in names) == 3


def test_local_matching_compares_with_nine_destinations_only(exported):
    """The largest product of the matching grows with the tokens, not with their square."""
    shapes = {each.name: each for each in onnx.load(exported("hq", "local", "portable").path).graph.value_info}
    similarities = [name for name in shapes if name.rpartition("/")[2].startswith("similarity")]
    assert len(similarities) == 8
    for name in similarities:
        assert shapes[name].type.tensor_type.shape.dim[-1].dim_value == 9


def test_fused_attention_counts_as_its_two_products(exported):
    """Nobody's figures get better by hiding arithmetic in a fused operator."""
    portable = exported("original", "exact", "portable").contract.multiply_adds
    assert exported("original", "exact", "onnxruntime").contract.multiply_adds == portable


@pytest.mark.parametrize(
    ("matching", "share"), [pytest.param("exact", 1, marks=pytest.mark.slow), ("exact", 0), ("local", 2)]
)
def test_blocks_share_their_matching_in_the_graph(tmp_path, matching, share):
    report = export_onnx(path=tmp_path / "model.onnx", variant="fast", matching=matching, share_matching=share, res=ODD)
    names = [node.name for node in onnx.load(report.path).graph.node]
    blocks = [name.split("/")[2] for name in names if name.rpartition("/")[2].startswith("similarity")]
    assert Counter(blocks) == ({"blocks.0": 4, "blocks.1": 4} if share == 1 else {"blocks.0": 4})
    assert len([name for name in names if name.endswith("attention/unmerged")]) == 4  # two late stages, each block
    assert report.contract.share_matching == share


@pytest.mark.parametrize("size", ["b2", pytest.param("b5", marks=pytest.mark.slow)])
@pytest.mark.parametrize("share", [*(pytest.param(each, marks=pytest.mark.slow) for each in (1, 0)), 2])
def test_deep_networks_share_their_matching(size, share):
    """The depths of B2 and B5 with narrow channels: graph and network answer alike, block by block."""
    depths = MIT_SIZES[size][1]
    config = SegFormerConfig(
        EncoderConfig(channels=(8, 8, 10, 16), depths=depths, heads=(1, 2, 5, 8)), HeadConfig("mmseg", 12, 5)
    )
    model = randomized(SegFormer(config), seed=3)
    recipe = with_matching(VARIANTS["hq"], local=True, share_matching=share)
    graph, image = lowered_graph(model, recipe)
    matchings = [node for node in graph.graph.node if node.name.rpartition("/")[2] == "similarity"]
    assert len(matchings) == sum(-(-depth // share) if share else 1 for depth in depths)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    answer = session.run(None, {"image": image.numpy()})[0]
    with torch.no_grad():
        expected = model(image, recipe).numpy()
    assert_alike(answer, expected)
    if share != 1:
        with torch.no_grad():
            anew = model(image, with_matching(recipe, local=True)).numpy()
        assert np.abs(anew - expected).max() > 1e-2


def lowered_graph(model, recipe):
    """The portable graph of a network on normalized images, and an input."""
    spec = InputSpec("image", 160, 192, layout="NCHW", dtype="float32", normalized_in_graph=False)
    image = torch.randn(1, 3, 160, 192, generator=torch.Generator().manual_seed(1))
    traced = trace_to_onnx(
        Deployable(model, recipe, spec=spec, output="logits").eval(), image, names=("image", "logits"), opset=17
    )
    return lowered(traced, "portable"), image


@pytest.mark.parametrize(
    "target", [each if each in DISTINCT else pytest.param(each, marks=pytest.mark.slow) for each in LOWERINGS]
)
@pytest.mark.parametrize("opset", [17, *(pytest.param(each, marks=pytest.mark.slow) for each in (18, 19)), 20])
def test_corners_are_aligned_in_every_graph(target, opset):
    """At an odd size; the expected maps are upsampled here, apart from the network's own head."""
    config = SegFormerConfig(
        EncoderConfig((8, 8, 16, 16), (1, 1, 1, 1), (1, 2, 2, 4)), HeadConfig("mmseg", 12, 5, align_corners=True)
    )
    model = randomized(SegFormer(config), seed=3)
    spec = InputSpec("image", 75, 98, layout="NCHW", dtype="float32", normalized_in_graph=False)
    image = torch.randn(1, 3, 75, 98, generator=torch.Generator().manual_seed(1))
    head, features = model.head, model.encoder(image, VARIANTS["original"])
    logits, other = (
        head.classifier(
            head.fusion(
                torch.nn.functional.interpolate(unit(each), size=(19, 25), mode="bilinear", align_corners=aligned)
                for unit, each in zip(head.projections, features, strict=True)
            )
        )
        for aligned in (True, False)
    )
    labels = torch.nn.functional.interpolate(logits, size=(75, 98), mode="bilinear", align_corners=True).argmax(1)
    for output, expected in (("logits", logits), ("labels", labels)):
        module = Deployable(model, VARIANTS["original"], spec=spec, output=output, align_corners=True).eval()
        graph = lowered(trace_to_onnx(module, image, names=("image", output), opset=opset), target)
        session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        answers = [session.run(None, {"image": image.numpy()})[0]]
        if target != "onnxruntime" and opset in (17, 20):
            read = openvino.Core().read_model(io.BytesIO(graph.SerializeToString()))
            compiled = openvino.Core().compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            answers.append(compiled(image.numpy())[0])
        for answer in answers:
            if output == "labels":
                assert np.mean(answer == expected.numpy()) > 0.999
            else:
                np.testing.assert_allclose(answer, expected.numpy(), atol=1e-4)
                assert np.abs(answer - other.numpy()).max() > 1e-2
    assert len(labels.unique()) > 2


@pytest.mark.parametrize("target", [pytest.param("portable", marks=pytest.mark.slow), "onnxruntime"])
def test_every_target_takes_every_option(tmp_path, target):
    options = {"batch": 2, "output": "labels", "opset": 20, "share_matching": 2}
    report = export_onnx(
        path=tmp_path / "model.onnx", variant="fast", matching="local", target=target, res="160x128", **options
    )
    assert not report.parity.failures()
    graph = gs.import_onnx(onnx.load(report.path))
    assert all(isinstance(size, int) for tensor in graph.tensors().values() for size in tensor.shape or ())
    assert "Shape" not in {node.op for node in graph.nodes}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"variant": "2x2", "matching": "local"}, "--matching local .* '2x2' matches none"),
        ({"variant": "original", "share_matching": 2}, "--share-matching 2 .* 'original' matches none"),
        ({"variant": "fast", "share_matching": -1}, "share_matching is -1"),
        ({"variant": "fast", "matching": "near"}, "matching is 'near', expected one of exact, local"),
        ({"target": "tensorflow"}, "target is 'tensorflow', expected one of portable, onnxruntime"),
    ],
)
def test_wishes_that_mean_nothing_are_refused(tmp_path, options, words):
    with pytest.raises(UsageError, match=words):
        export_onnx(path=tmp_path / "model.onnx", res=ODD, **options)
    assert not list(tmp_path.iterdir())
