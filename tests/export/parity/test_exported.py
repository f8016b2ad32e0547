"""The check after an export: its figures are right, and a planted fault does not get through."""

import dataclasses
import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper

from sfpp.export import deployable, export_onnx, to_onnx
from sfpp.export.catalog import VARIANTS, variant_by_name
from sfpp.export.checkpoints import read_checkpoint
from sfpp.export.demo import demo_checkpoint
from sfpp.export.models.recipe import Bipartite, MergingRecipe, StageRecipe
from sfpp.export.models.token_merging import merge_tokens
from sfpp.export.parity import exported as after_export
from sfpp.export.parity.exported import ParityReport, PinnedReport, compare_with_pytorch, require_parity, require_tokens
from sfpp.export.parity.pinning import GraphMatching, PinnedMatching
from sfpp.export.parity.probed_model import AttentionTokens, run_with_probes
from sfpp.runtime.errors import CheckpointError, MissingDependencyError, VerificationError

RES = "160x128"
GOOD = ParityReport(1.0, (), max_error=1e-6, mean_error=1e-7, largest_logit=10.0)
NEAR_TIES = dataclasses.replace(GOOD, label_agreement=0.98, max_error=1.0, pinned=PinnedReport(1.0, 1e-6, 1e-6))


@pytest.fixture(scope="module")
def model():
    return to_onnx.learned_model(read_checkpoint(demo_checkpoint()))


@pytest.fixture(scope="module")
def exported(demo_export):
    return {
        "logits": demo_export(variant="hq", res=RES),
        "labels": demo_export(variant="hq", res=RES, output="labels"),
    }


def random_frames():
    return np.random.default_rng(31).integers(0, 256, (1, 128, 160, 3), np.uint8)


def graph_answer(path, frames):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"frame": frames})[0]


def pytorch_logits(model, frames, recipe):
    channels = torch.from_numpy(frames).float().unbind(-1)
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    image = torch.stack([(each - mean[i]) / std[i] for i, each in enumerate(channels)], 1)
    with torch.no_grad():
        return model(image, recipe)


def with_faults(path, changed, *, part, added):
    """Write the model once more with a part of the classifier changed by a little."""
    faulty = onnx.load(path)
    stored = next(each for each in faulty.graph.initializer if tuple(each.dims) == (11, 256, 1, 1))
    values = numpy_helper.to_array(stored).copy()
    values[part] += added
    stored.CopyFrom(numpy_helper.from_array(values, stored.name))
    onnx.save(faulty, changed)
    return changed


def test_figures_of_logits(tmp_path, exported, model):
    report, frames = exported["logits"], random_frames()
    path = with_faults(report.path, tmp_path / "faulty.onnx", part=(3, slice(0, 9)), added=0.02)
    result = compare_with_pytorch(path, model, VARIANTS["hq"], report.contract, frames)

    answer, expected = graph_answer(path, frames), pytorch_logits(model, frames, VARIANTS["hq"]).numpy()
    difference = np.abs(answer - expected)
    assert difference.max() > 0.01
    assert result.max_error == pytest.approx(difference.max(), rel=1e-3)
    assert result.mean_error == pytest.approx(difference.mean(), rel=1e-3)
    assert result.largest_logit == pytest.approx(np.abs(expected).max(), rel=1e-3)
    assert result.label_agreement == pytest.approx(np.mean(answer.argmax(1) == expected.argmax(1)), abs=1e-3)


def test_figures_of_labels(tmp_path, exported, model):
    report, frames = exported["labels"], random_frames()
    path = with_faults(report.path, tmp_path / "faulty.onnx", part=(8, slice(0, 256)), added=0.02)
    result = compare_with_pytorch(path, model, VARIANTS["hq"], report.contract, frames)

    logits = pytorch_logits(model, frames, VARIANTS["hq"])
    raised = F.interpolate(logits, size=(128, 160), mode="bilinear", align_corners=False)
    agreement = np.mean(graph_answer(path, frames) == raised.argmax(1).numpy())
    assert 0.05 < agreement < 0.999
    assert result.label_agreement == pytest.approx(agreement, abs=1e-3)
    assert (result.max_error, result.mean_error, result.largest_logit) == (None, None, None)
    with pytest.raises(VerificationError, match="labels agree on"):
        require_parity(result, path)


@pytest.mark.parametrize("kind", ["logits", "labels"])
def test_weights_that_give_no_numbers_are_named_and_not_sfpp(exported, kind):
    broken = to_onnx.learned_model(read_checkpoint(demo_checkpoint()))
    with torch.no_grad():
        for weights in broken.head.parameters():
            weights.mul_(1e30)
    report = exported[kind]
    with pytest.raises(CheckpointError, match="the training diverged or the file is damaged"):
        compare_with_pytorch(report.path, broken, VARIANTS["hq"], report.contract, random_frames())


@pytest.mark.parametrize("kind", ["logits", "labels"])
def test_a_sound_file_passes(exported, model, kind):
    report = exported[kind]
    result = compare_with_pytorch(report.path, model, VARIANTS["hq"], report.contract, random_frames())
    assert result.failures() == []
    require_parity(result, report.path)


def test_tokens_are_measured_in_network_order(exported):
    names = [f"encoder/stages.{stage}/blocks.{block}/attention" for stage in range(4) for block in range(2)]
    # grids 32x40, 16x20, 8x10, 4x5; keys and values on 4x5 throughout
    counts = [(1280, 8), (320, 8), (80 - 64, 20), (20 - 16, 20)]
    expected = [AttentionTokens(name, *counts[index // 2]) for index, name in enumerate(names)]
    assert list(exported["logits"].parity.tokens) == expected
    assert list(exported["labels"].parity.tokens) == expected


def test_blocks_are_ordered_by_number_not_by_letter(tmp_path, exported):
    """B3 to B5 have more than ten blocks a stage."""
    renamed = onnx.load(exported["logits"].path)
    for node in renamed.graph.node:
        for names in (node.input, node.output):
            names[:] = [each.replace("blocks.1/", "blocks.10/").replace("blocks.0/", "blocks.9/") for each in names]
        node.name = node.name.replace("blocks.1/", "blocks.10/").replace("blocks.0/", "blocks.9/")
    for stored in (*renamed.graph.initializer, *renamed.graph.value_info):
        stored.name = stored.name.replace("blocks.1/", "blocks.10/").replace("blocks.0/", "blocks.9/")
    onnx.save(renamed, tmp_path / "renamed.onnx")
    run = run_with_probes(tmp_path / "renamed.onnx", exported["logits"].contract, random_frames())
    blocks = [each.name.split("/")[2] for each in run.tokens]
    assert blocks == ["blocks.9", "blocks.10"] * 4


def test_matchings_are_reported_in_network_order(tmp_path):
    words = {"q_mode": "bsm", "q_r": 0.5, "q_sx": 2, "q_sy": 2, "kv_mode": "bsm", "kv_r": 1.0, "kv_sx": 2, "kv_sy": 2}
    recipe = tmp_path / "both.json"
    recipe.write_text(json.dumps([words, {}, {}, words]))
    report = export_onnx(path=tmp_path / "model.onnx", variant=recipe, res=RES)
    run = run_with_probes(report.path, report.contract, random_frames())
    shapes = [(each.kept.shape, each.partner.shape) for each in run.matchings]
    # stage 1: queries on 32x40, keys and values on 4x5; stage 4: both on 4x5; a ratio of 1 keeps nothing
    first, last, keys = ((1, 320), (1, 960)), ((1, 6), (1, 16)), ((1, 0), (1, 16))
    assert shapes == [first, keys, first, keys, last, keys, last, keys]


@pytest.mark.parametrize("output", ["logits", "labels"])
def test_near_ties_are_settled_alike(monkeypatch, exported, model, output):
    """With no tolerance the plain comparison fails; given the graph's matching, PyTorch answers as the graph does."""
    report = exported[output]
    with monkeypatch.context() as strict:
        strict.setattr(after_export, "MAX_ERROR", -1.0)
        strict.setattr(after_export, "LABEL_AGREEMENT", 1.1)
        result = compare_with_pytorch(report.path, model, VARIANTS["hq"], report.contract, random_frames())
    assert result.pinned.matching_gap < 1e-5
    assert result.pinned.label_agreement > 0.999
    assert result.pinned.max_error is None if output == "labels" else result.pinned.max_error < 1e-3
    assert result.failures() == []


def test_without_matching_nothing_is_pinned(exported, model, tmp_path):
    report = export_onnx(path=tmp_path / "model.onnx", variant="2x2", res=RES)
    result = compare_with_pytorch(report.path, model, VARIANTS["original"], report.contract, random_frames())
    assert result.pinned is None
    assert result.failures()


MATCHING = GraphMatching(np.array([[0, 3]], np.int32), np.array([[0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]], np.int32))


@pytest.mark.parametrize(
    "matchings",
    [
        [],
        [dataclasses.replace(MATCHING, kept=MATCHING.kept[:, :1])],
        [dataclasses.replace(MATCHING, kept=MATCHING.kept + 9)],
        [dataclasses.replace(MATCHING, kept=MATCHING.kept - 1)],
        [dataclasses.replace(MATCHING, partner=MATCHING.partner[:, :11])],
        [dataclasses.replace(MATCHING, partner=MATCHING.partner + 1)],
        [dataclasses.replace(MATCHING, partner=MATCHING.partner - 1)],
    ],
    ids=["none", "fewer kept", "kept too large", "kept negative", "fewer sources", "partner too large", "negative"],
)
def test_a_matching_of_another_plan_is_refused(matchings):
    tokens, merging = torch.randn(1, 16, 7), Bipartite(10 / 16, (2, 2))
    with PinnedMatching([MATCHING]):
        merge_tokens(tokens, (4, 4), merging)
    with (
        PinnedMatching(matchings),
        pytest.raises(VerificationError, match=r"on a grid of 4x4 .*cells of 2x2, 2 of 12 tokens should stay"),
    ):
        merge_tokens(tokens, (4, 4), merging)


NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({}, []),
        ({"label_agreement": 0.999}, []),
        ({"label_agreement": 0.9985}, ["labels agree on 99.850% of the pixels, expected 99.9%"]),
        ({"label_agreement": NAN}, ["labels agree on nan% of the pixels, expected 99.9%"]),
        ({"max_error": 1e-3}, []),  # of a scale of 10
        ({"max_error": 1.1e-3}, ["the maximum error is 1.10e-03, expected at most 1e-03"]),
        ({"max_error": 1.1e-4, "largest_logit": 0.1}, ["the maximum error is 1.10e-04, expected at most 1e-04"]),
        ({"max_error": NAN}, ["the maximum error is nan, expected at most 1e-03"]),
        ({"max_error": NAN, "largest_logit": NAN}, ["the maximum error is nan"]),
        ({"max_error": 2.0, "label_agreement": 0.1}, ["labels agree", "the maximum"]),
        ({"max_error": None, "mean_error": None, "largest_logit": None}, []),
    ],
)
def test_tolerances(changes, problems):
    assert_failures(dataclasses.replace(GOOD, **changes), problems)


@pytest.mark.parametrize(
    ("changes", "pinned", "problems"),
    [
        ({}, {}, []),
        ({"label_agreement": 0.5}, {}, []),  # any partner was as good as any other, and all else is exact
        ({}, {"label_agreement": 0.999}, []),
        ({}, {"label_agreement": 0.9985}, ["labels agree on 99.850% of the pixels, expected 99.9%"]),
        ({}, {"max_error": 9.9e-4}, []),
        ({}, {"max_error": 1.1e-3}, ["the maximum error is 1.10e-03, expected at most 1e-03"]),
        ({}, {"max_error": None}, []),
        ({}, {"matching_gap": 1e-5}, []),
        ({}, {"matching_gap": 1.1e-5}, ["tokens are merged with partners that are 1.1e-05 less similar"]),
        ({}, {"matching_gap": NAN}, ["tokens are merged with partners"]),
        ({"label_agreement": NAN}, {"label_agreement": NAN, "max_error": NAN}, ["labels", "the maximum"]),
    ],
)
def test_tolerances_where_ties_were_settled(changes, pinned, problems):
    settled = dataclasses.replace(NEAR_TIES.pinned, **pinned)
    assert_failures(dataclasses.replace(NEAR_TIES, pinned=settled, **changes), problems)


def assert_failures(report, problems):
    found = report.failures()
    assert len(found) == len(problems), found
    assert all(have.startswith(want) for have, want in zip(found, problems, strict=True)), found


def test_the_summary_is_one_line():
    assert GOOD.summary() == "max error 1.0e-06, mean 1.0e-07, labels agree on 100.00%"
    assert ParityReport(0.9987, ()).summary() == "labels agree on 99.87%"
    assert NEAR_TIES.summary() == (
        "max error 1.0e+00, mean 1.0e-07, labels agree on 98.00%; "
        "with near ties settled alike: max error 1.0e-06, labels 100.00%"
    )


def test_a_failure_says_what_to_do(tmp_path):
    with pytest.raises(VerificationError, match=r"^model\.onnx does not agree .*was not kept.*report it"):
        require_parity(dataclasses.replace(GOOD, max_error=1.0), tmp_path / "model.onnx")


def test_tokens_must_be_as_planned():
    seen = (AttentionTokens("a", 12, 4), AttentionTokens("b", 6, 4))
    report = dataclasses.replace(GOOD, tokens=seen)
    require_tokens(report, [(12, 4), (6, 4)])
    for planned in ([(12, 4)], [(6, 4), (12, 4)], [(12, 4), (6, 3)], []):
        with pytest.raises(VerificationError, match=r"attentions saw \[\(12, 4\), \(6, 4\)\], planned"):
            require_tokens(report, planned)


def test_a_graph_without_probes_has_lost_its_tokens(tmp_path, exported, model):
    nameless = onnx.load(exported["logits"].path)
    for node in nameless.graph.node:
        node.name = ""
    onnx.save(nameless, tmp_path / "nameless.onnx")
    report = compare_with_pytorch(
        tmp_path / "nameless.onnx", model, VARIANTS["hq"], exported["logits"].contract, random_frames()
    )
    with pytest.raises(VerificationError, match=r"attentions saw \[\]"):
        require_tokens(report, [(1, 1)] * 8)


def test_a_graph_that_does_not_run(exported, model):
    report = exported["logits"]
    with pytest.raises(VerificationError, match="the exported graph does not run in ONNX Runtime"):
        compare_with_pytorch(report.path, model, VARIANTS["hq"], report.contract, random_frames()[:, 1:])


def wrong_initializer(make):
    def changed(model, recipe, contract, example):
        graph = make(model, recipe, contract, example)
        stored = next(each for each in graph.graph.initializer if tuple(each.dims) == (256, 32, 1, 1))
        values = numpy_helper.to_array(stored).copy()
        values[0] *= 1.5
        stored.CopyFrom(numpy_helper.from_array(values, stored.name))
        return graph

    return changed


def wrong_color_order(make):
    def changed(model, recipe, contract, example):
        spec = dataclasses.replace(contract.input, mean=contract.input.mean[::-1], std=contract.input.std[::-1])
        return make(model, recipe, dataclasses.replace(contract, input=spec), example)

    return changed


def wrong_recipe(name):
    def fault(make):
        return lambda model, recipe, contract, example: make(model, variant_by_name(name).recipe, contract, example)

    return fault


def wrong_cell(make):
    late = StageRecipe(query=Bipartite(0.8, (2, 4)))
    early = StageRecipe(key_value=Bipartite(0.6, (2, 2)))
    recipe = MergingRecipe((early, early, late, late))
    return lambda model, _, contract, example: make(model, recipe, contract, example)


def wrong_order(name):
    """Take the smallest for the largest, or the other way round, where the matching chooses."""

    def fault(make):
        def changed(model, recipe, contract, example):
            graph = make(model, recipe, contract, example)
            for node in graph.graph.node:
                if node.name.endswith(name):
                    assert node.op_type == "TopK"
                    largest = next((each for each in node.attribute if each.name == "largest"), None)
                    node.attribute.append(onnx.helper.make_attribute("largest", 1 if largest and largest.i == 0 else 0))
                    if largest:
                        node.attribute.remove(largest)
            return graph

        return changed

    return fault


FAULTS = {
    "initializer": wrong_initializer,
    "color order": wrong_color_order,
    "no merging": wrong_recipe("original"),
    "another variant": wrong_recipe("fast"),
    "cell": wrong_cell,
    "worst partner": wrong_order("/best"),
    "wrong tokens kept": wrong_order("/least_0"),
}


@pytest.mark.parametrize(
    ("fault", "output"),
    [
        *(pytest.param(each, "logits", marks=[pytest.mark.slow] * (each == "another variant")) for each in FAULTS),
        *(pytest.param(each, "labels", marks=pytest.mark.slow) for each in ("worst partner", "color order", "cell")),
    ],
)
def test_a_planted_fault_leaves_no_file(tmp_path, monkeypatch, fault, output):
    monkeypatch.setattr(to_onnx, "graph_from_model", FAULTS[fault](to_onnx.graph_from_model))
    with pytest.raises(VerificationError):
        export_onnx(path=tmp_path / "model.onnx", variant="hq", res=RES, output=output)
    assert list(tmp_path.iterdir()) == []


def test_a_fault_in_a_rewrite_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(deployable, "fold_scale", lambda attention: setattr(attention, "scale", 1.0))
    with pytest.raises(VerificationError, match="does not agree with PyTorch"):
        export_onnx(path=tmp_path / "model.onnx", res=RES)
    assert list(tmp_path.iterdir()) == []


def test_without_onnx_runtime_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        MissingDependencyError, match=r"onnxruntime, which is not installed: pip install 'sfpp\[export\]'"
    ):
        export_onnx(path=tmp_path / "model.onnx", res=RES)
    assert list(tmp_path.iterdir()) == []
