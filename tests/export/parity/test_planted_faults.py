"""Each planted fault is caught, and the message points to the place."""

import functools
import re

import onnx
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sfpp.export import export_onnx
from sfpp.export.catalog import VARIANTS, words_from_recipe
from sfpp.export.demo import demo_checkpoint
from sfpp.export.parity import parity
from tests.export.parity.planted import with_contract, with_normalization, with_scaled_layer, without_names

slow = functools.partial(pytest.param, marks=pytest.mark.slow)
# One of each task; the others are compared alike.
MODELS = ("fast", "pose", slow("original"), slow("edaformer"))
ONE = ("fast", *map(slow, ("pose", "original", "edaformer")))
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def compared(path, model, **options):
    return parity(path, **{"weights": model.weights, "frames": 1, **options})


@pytest.mark.parametrize("name", MODELS)
def test_a_sound_file_agrees(exported, name):
    model = exported(name)
    report = compared(model.path, model)
    assert report.agrees
    assert (report.failures, report.place, report.notes) == ((), None, ())
    assert all(point.within for point in report.points)


@pytest.mark.parametrize("name", ONE)
def test_a_layer_twice_too_large(exported, tmp_path, name):
    model = exported(name)
    path = with_scaled_layer(model.path, tmp_path / "faulty.onnx", "encoder/stages.1/blocks.0/ffn/contract/Conv")
    report = compared(path, model)
    assert re.match(
        r"first disagreement at stages\.1/blocks\.0/ffn/contract: .*times PyTorch's, .*; everything before it agrees$",
        report.place,
    )
    wrong = [point.name for point in report.points if not point.within]
    assert wrong == ["stages.1/blocks.0/ffn/contract", "stages.1/blocks.0/ffn"]  # in step, no error is passed on
    assert report.points[-1].total > 1e-3


@pytest.mark.parametrize(
    ("name", "node", "place"),
    [
        slow("fast", "encoder/stages.0/patch_embed/projection/Conv", "stages.0/patch_embed/projection"),
        slow("fast", "encoder/stages.0/blocks.0/attention/reduction/Conv", "stages.0/blocks.0/attention/reduction"),
        slow("fast", "encoder/stages.0/blocks.1/attention/key_value/MatMul", "stages.0/blocks.1/attention/key_value"),
        ("fast", "encoder/stages.2/blocks.1/attention/query/MatMul", "stages.2/blocks.1/attention/query"),
        slow("fast", "encoder/stages.3/blocks.0/attention/output/MatMul", "stages.3/blocks.0/attention/output"),
        ("original", "encoder/stages.2/norm/LayerNormalization", "stages.2/norm"),
        slow("original", "encoder/stages.1/blocks.1/norm1/LayerNormalization", "stages.1/blocks.1/attention/norm1"),
        slow("original", "head/projections.2/projections.2.0/Conv", "head/projections.2"),
        ("original", "head/parts.0.1/Conv", "head/fusion"),
        ("pose", "head/parts.0.4/Conv", "logits"),
        slow("pose", "encoder/stages.2/blocks.0/ffn/depthwise/Conv", "stages.2/blocks.0/ffn/depthwise"),
        slow(
            "edaformer", "encoder/stages.2/blocks.4/attention/key_value/Conv", "stages.2/blocks.4/attention/key_value"
        ),
        slow("edaformer", "head/stages.2.1/ffn/expand/Conv", "head/stages.2.1/ffn/expand"),
        slow("edaformer", "head/fusion/parts.0.2/Conv", "head/fusion"),
    ],
)
def test_the_layer_is_named(exported, tmp_path, name, node, place):
    model = exported(name)
    report = compared(with_scaled_layer(model.path, tmp_path / "faulty.onnx", node), model)
    assert report.place.startswith(f"first disagreement at {place}: ")
    assert "everything before it agrees" in report.place


@pytest.mark.parametrize("name", ONE)
def test_a_wrong_color_order(exported, tmp_path, name):
    model = exported(name)
    report = compared(with_contract(model.path, tmp_path / "faulty.onnx", input={"color_order": "BGR"}), model)
    assert report.place == (
        "the input already differs: with red and blue exchanged it agrees - the color order is wrong "
        "(the contract says BGR, the checkpoint was trained on RGB)"
    )


@pytest.mark.parametrize("name", ["fast", slow("edaformer")])
def test_normalization_in_the_wrong_order(exported, tmp_path, name):
    model = exported(name)
    report = compared(with_normalization(model.path, tmp_path / "faulty.onnx", MEAN[::-1], STD[::-1]), model)
    assert report.place == (
        "the input already differs: with mean and std in the order blue, green, red it agrees - red and blue are "
        "exchanged in mean and std; the checkpoint's training says mean (123.675, 116.28, 103.53) and std (58.395, "
        "57.12, 57.375)"
    )


@pytest.mark.parametrize(
    ("mean", "std", "words"),
    [
        ((0, 0, 0), (1, 1, 1), "with normalization skipped it agrees - raw values 0..255 reach the network"),
        slow(
            (0, 0, 0), (255, 255, 255), "with values of 0..1 it agrees - frames are divided by 255 and not normalized"
        ),
        slow([x / 255 for x in MEAN], [x / 255 for x in STD], "it agrees - mean and std are on the 0..1 scale"),
        ((100, 110, 120), (50, 55, 60), "the graph normalizes with mean (100, 110, 120) and std (50, 55, 60), the ch"),
    ],
)
def test_other_normalization_in_the_graph(exported, tmp_path, mean, std, words):
    model = exported("fast")
    report = compared(with_normalization(model.path, tmp_path / "faulty.onnx", mean, std), model)
    assert report.place.startswith("the input already differs: ")
    assert words in report.place


def test_the_contracts_mean_and_std(tmp_path):
    """A float32 input is normalized by the runtime, as the contract says."""
    path = export_onnx(path=tmp_path / "model.onnx", res="192x128", input="float32").path
    other = {"mean": (128.0, 128.0, 128.0), "std": (64.0, 64.0, 64.0)}
    report = parity(with_contract(path, tmp_path / "faulty.onnx", input=other), frames=1)
    assert report.place.startswith(
        "the input already differs: with the contract's mean and std it agrees - mean/std differ: contract says mean "
        "(128, 128, 128) and std (64, 64, 64), the checkpoint's training says mean (123.675, 116.28, 103.53)"
    )
    raw = parity(with_contract(path, tmp_path / "raw.onnx", input={"normalized_in_graph": True}), frames=1)
    assert "with normalization skipped it agrees" in raw.place


def test_a_wrong_mean_that_only_the_border_shows(exported, tmp_path):
    model = exported("original")  # of another shape than the picture, so that a letterbox has borders
    report = compared(with_contract(model.path, tmp_path / "faulty.onnx", input={"mean": (90.0, 90.0, 90.0)}), model)
    assert (
        "with the contract's mean and std it agrees - mean/std differ: contract says mean (90, 90, 90)" in report.place
    )


def test_a_wrong_mean_that_no_frame_shows(exported, tmp_path):
    model = exported("pose")  # a crop fills the input
    report = compared(with_contract(model.path, tmp_path / "odd.onnx", input={"mean": (90.0, 90.0, 90.0)}), model)
    assert report.failures == (report.place,)
    assert report.place.startswith(
        "mean differs: the file has 90 90 90, the checkpoint's training 123.675 116.28 103.53"
    )


def stale_checkpoint(path, *, part):
    """Write the demonstration weights as a further step of training would change them."""
    with safe_open(demo_checkpoint(), "pt") as stored:
        metadata, state = stored.metadata(), {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
    random = torch.Generator().manual_seed(3)
    for key, value in state.items():
        if part in key and value.ndim > 1:
            noise = torch.randn(value.shape, generator=random) * value.float().std() * 0.02
            state[key] = (value + noise).to(value.dtype)
    save_file(state, path, metadata=metadata)
    return path


@pytest.mark.parametrize("name", ["fast", slow("original")])
def test_a_stale_checkpoint(exported, tmp_path, name):
    weights = stale_checkpoint(tmp_path / "later.safetensors", part="")
    report = parity(exported(name).path, weights=weights, frames=1)
    assert report.place.startswith("first disagreement at stages.0/patch_embed/projection: ")
    assert re.search(
        r"\d+ of \d+ parts differ, each by itself, so the graph holds other weights than these", report.place
    )
    assert re.search(
        r"made from a checkpoint with the SHA-256 \w{12}\.\.\., and .*later\.safetensors has \w{12}", report.place
    )


def test_a_head_that_was_trained_further(exported, tmp_path):
    weights = stale_checkpoint(tmp_path / "later.safetensors", part="decode_head.fusion")
    report = parity(exported("original").path, weights=weights, frames=1)
    assert report.place.startswith("first disagreement at head/fusion: ")
    assert "the file was made from a checkpoint with the SHA-256" in report.place


def test_converted_weights_are_a_note_only(exported, tmp_path):
    weights = stale_checkpoint(tmp_path / "converted.safetensors", part="no such part")
    report = parity(exported("original").path, weights=weights, frames=1)
    assert report.agrees
    with safe_open(demo_checkpoint(), "pt") as stored:
        state = {key: stored.get_tensor(key).float() for key in stored.keys()}  # noqa: SIM118
    save_file(state, tmp_path / "float.safetensors")
    report = parity(exported("original").path, weights=tmp_path / "float.safetensors", frames=1)
    assert report.agrees
    assert any("harmless if it was only converted" in note for note in report.notes)


@pytest.mark.parametrize(
    ("name", "said", "words"),
    [
        (
            "fast",
            "hq",
            "1536 queries and 3 keys/values, expected 1536 and 10; these are the tokens of the variant 'fast'",
        ),
        slow("fast", "original", "expected 1536 and 24; these are the tokens of the variant 'fast'"),
        ("original", "fast", "expected 1536 and 3; these are the tokens of the variant 'original'"),
        slow(
            "edaformer", "1111-111", "1536 queries and 6 keys/values, expected 1536 and 24; these are the tokens of the"
        ),
    ],
)
def test_a_wrong_recipe(exported, tmp_path, name, said, words):
    model = exported(name)
    recipe = words_from_recipe(VARIANTS[said]) if said in VARIANTS else ({"isr": said},)
    report = compared(with_contract(model.path, tmp_path / "faulty.onnx", variant=said, recipe=recipe), model)
    assert report.place.startswith(
        "merging is not as the contract says, first at stages.0/blocks.0/attention: it works on"
    )
    assert words in report.place
    assert report.failures[0] == report.place


def test_another_rule_of_matching(exported, tmp_path):
    model = exported("fast")
    report = compared(with_contract(model.path, tmp_path / "faulty.onnx", matching="local"), model)
    assert re.match(
        r"first disagreement at stages\.\d/blocks\.0/attention: tokens are merged with partners that the contract's "
        r"rule of matching does not allow; looked for everywhere \(exact\) they are the best - the contract says that "
        r"matching is local",
        report.place,
    )
    local = export_onnx(path=tmp_path / "local.onnx", variant="fast", matching="local", res="192x128").path
    report = compared(with_contract(local, tmp_path / "other.onnx", matching="exact"), model)
    assert re.search(r"less similar than the best ones; looked for among neighbors \(local\) they are", report.place)


def test_matchings_shared_against_the_contract(exported, tmp_path):
    model = exported("fast")
    report = compared(with_contract(model.path, tmp_path / "faulty.onnx", share_matching=0), model)
    assert report.place == (
        "stages.0/blocks.1/attention matches tokens, but the contract says that the blocks of a stage share one "
        "matching (share_matching)"
    )
    shared = export_onnx(path=tmp_path / "shared.onnx", variant="fast", share_matching=0, res="192x128").path
    assert compared(shared, model).agrees
    report = compared(with_contract(shared, tmp_path / "other.onnx", share_matching=1), model)
    assert report.place.startswith("stages.0/blocks.1/attention reuses another block's matching of tokens, but")


def test_other_rounds_of_kmeans_than_the_contract_says(exported, tmp_path):
    model = exported("fast+")
    assert compared(model.path, model).agrees
    words = [dict(stage) for stage in words_from_recipe(VARIANTS["fast+"])]
    words[0]["kv_rounds"] = 3
    report = compared(with_contract(model.path, tmp_path / "faulty.onnx", recipe=tuple(words)), model)
    assert report.place == (
        "stages.0/blocks.0/attention matches tokens in 2 steps (rounds of k-means count), expected 3 by the recipe in "
        "the contract"
    )


def test_keys_that_should_weigh_by_their_sizes(exported, tmp_path):
    model = exported("fast+")
    words = tuple(
        {key: value for key, value in stage.items() if key != "kv_size"}
        for stage in words_from_recipe(VARIANTS["fast+"])
    )
    report = compared(with_contract(model.path, tmp_path / "faulty.onnx", recipe=words), model)
    assert report.place.startswith("first disagreement at stages.0/blocks.0/attention/softmax and products: ")
    assert len([point for point in report.points if not point.within and not point.detail]) == 4


def test_a_token_in_another_cell(exported, tmp_path):
    """The graph takes the least similar of the nine cells instead of the most similar one."""
    model = exported("fast+")
    graph = onnx.load(model.path)
    for node in graph.graph.node:
        if node.name == "encoder/stages.1/blocks.0/attention/nearest_1":
            node.op_type = "ArgMin"
    onnx.save(graph, tmp_path / "faulty.onnx")
    report = compared(tmp_path / "faulty.onnx", model)
    assert re.match(
        r"first disagreement at stages\.1/blocks\.0/attention: tokens are merged with partners that are \S+ less "
        r"similar than the best ones$",
        report.place,
    )


def test_an_overflow_is_told_from_an_error(exported, tmp_path):
    model = exported("fast")
    path = with_scaled_layer(
        model.path, tmp_path / "faulty.onnx", "encoder/stages.2/blocks.0/ffn/depthwise/Conv", factor=float("inf")
    )
    report = compared(path, model)
    assert report.place.startswith(
        "first disagreement at stages.2/blocks.0/ffn/depthwise: the graph has NaN or infinity here (first at channel 0,"
    )
    assert report.place.endswith("everything before it agrees")
    assert "from stages.2/blocks.0/ffn/depthwise on the graph's values are NaN or infinite" in report.failures
    assert any("the model's logits contain NaN" in failure for failure in report.failures)


def test_a_graph_without_names_is_compared_by_its_answers(exported, tmp_path):
    model = exported("original")
    sound = compared(without_names(model.path, tmp_path / "nameless.onnx"), model)
    assert sound.agrees
    assert [point.name for point in sound.points] == ["logits"]
    assert any("no names that are known here" in note for note in sound.notes)
    merging = exported("fast")
    report = compared(without_names(merging.path, tmp_path / "fast.onnx"), merging)
    assert (report.agrees, [output.mode for output in report.outputs]) == (True, ["free"])
    assert any("so nobody sees which tokens it merges" in note for note in report.notes)
    faulty = with_contract(tmp_path / "nameless.onnx", tmp_path / "faulty.onnx", input={"color_order": "BGR"})
    report = compared(faulty, model)
    assert report.place.startswith(
        "the input differs: with red and blue exchanged it agrees - the color order is wrong"
    )
