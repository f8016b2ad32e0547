"""Networks with sigmoids: PyTorch's side is the network of one output itself, and a wrong threshold is named."""

import functools

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper

from sfpp.export import export_onnx
from sfpp.export.parity import parity
from sfpp.export.parity.cli import main
from sfpp.export.parity.reference import interpolation, reference_for
from sfpp.export.parity.settings import ParitySettings
from sfpp.runtime.errors import CheckpointError, UsageError
from sfpp.runtime.labels import labels_from_logits, logit
from tests.export.parity.planted import contract_of, with_contract
from tests.export.test_sigmoid import CONFIG, NAMES, ROAD, road_weights

CLASSIFIER = "head/parts.0.4/Conv"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return what exports a network with sigmoids, once each: the file and its weights."""

    @functools.cache
    def make(**settings):
        folder = tmp_path_factory.mktemp("sigmoids")
        if settings.get("multi_label"):
            weights = road_weights(folder, {}, rows=(ROAD, 0, 6))
        else:
            weights = road_weights(folder, {"config": CONFIG, "CLASSES": NAMES})
        return export_onnx(weights, folder / "road.onnx", res="160x96", **settings).path, weights

    return make


def with_constant(source, path, node_name, position, change):
    """Write the file once more with another constant behind a node's input."""
    model = onnx.load(source)
    node = next(each for each in model.graph.node if each.name == node_name or each.op_type == node_name)
    stored = next(each for each in model.graph.initializer if each.name == node.input[position])
    stored.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(stored).copy()), stored.name))
    onnx.save(model, path)
    return path


def other_threshold(bias):
    bias[0] = logit(0.5)
    return bias


@pytest.mark.parametrize(
    "settings",
    [{}, {"output": "labels", "threshold": 0.3}, {"multi_label": True}, {"multi_label": True, "output": "labels"}],
)
def test_a_sound_file_agrees(exported, settings):
    path, weights = exported(**settings)
    report = parity(path, weights=weights, frames=1)
    assert report.agrees, (report.failures, report.place)
    assert (report.place, report.notes) == (None, ())
    assert report.outputs[0].same > 0.9999
    assert any(point.name == "logits" for point in report.points)


@pytest.mark.parametrize("settings", [{}, {"output": "labels", "threshold": 0.3}])
def test_another_threshold_in_the_graph(exported, tmp_path, settings):
    path, weights = exported(**settings)
    planted = with_constant(path, tmp_path / "planted.onnx", CLASSIFIER, 2, other_threshold)
    report = parity(planted, weights=weights, frames=1)
    assert "the threshold differs: the graph has 0.5, expected 0.3" in report.failures
    assert report.outputs[0].same < 0.99
    assert report.place.startswith("first disagreement at logits: ")


@pytest.mark.parametrize("position", [1, 2])
def test_a_row_in_the_others_place(exported, tmp_path, position):
    path, weights = exported()
    planted = with_constant(path, tmp_path / "once.onnx", CLASSIFIER, position, lambda values: values[::-1].copy())
    report = parity(planted, weights=weights, frames=1)
    assert not report.agrees
    assert any(line.startswith("the threshold ") for line in report.failures)


def test_another_threshold_in_the_contract(exported, tmp_path):
    path, weights = exported()
    report = parity(with_contract(path, tmp_path / "planted.onnx", threshold=0.5), weights=weights, frames=1)
    assert report.failures == (
        "the threshold differs: the file says 0.5, expected 0.3 (meta.config); if 0.5 was chosen when it was exported, "
        "give --threshold 0.5",
    )


def test_a_threshold_that_was_chosen_is_to_be_said(exported, capsys):
    path, weights = exported(threshold=0.6)
    report = parity(path, weights=weights, frames=1)
    assert any("give --threshold 0.6" in line for line in report.failures)
    assert report.outputs[0].same < 0.99  # PyTorch's side takes what the checkpoint says
    assert main([str(path), "--weights", str(weights), "--frames", "1", "--threshold", "0.6"]) == 0
    assert "AGREES" in capsys.readouterr().out


def test_a_threshold_is_given_where_the_checkpoint_says_none_that_can_be_read(exported, tmp_path):
    contract = contract_of(onnx.load(exported()[0]))
    weights = road_weights(tmp_path, {"cfg": "model = dict(decode_head=dict(threshold=half()))"})
    with pytest.raises(CheckpointError, match="give the right one with --threshold"):
        reference_for(contract, weights)
    settings = ParitySettings(model="road.onnx", threshold=0.3, color_order="RGB")
    assert reference_for(contract, weights, settings).threshold == 0.3


def test_another_threshold_in_a_graph_of_masks(exported, tmp_path):
    path, weights = exported(multi_label=True, output="labels")
    planted = with_constant(path, tmp_path / "planted.onnx", "Greater", 1, lambda value: value + 1)
    report = parity(planted, weights=weights, frames=1)
    assert "the threshold differs: the graph's masks are not where its logits are above 0.5" in report.failures
    assert report.outputs[0].same < 0.99


def test_masks_have_no_label_images(exported, tmp_path):
    path, weights = exported(multi_label=True)
    with pytest.raises(UsageError, match="label images hold one class per pixel, and this is a multi-label model"):
        parity(path, weights=weights, labels=tmp_path)


def test_a_checkpoint_of_two_outputs_is_another_network(exported, tmp_path):
    path, _ = exported()
    two = road_weights(tmp_path, {}, rows=(ROAD, 0))
    with pytest.raises(UsageError, match=r"road\.pth has two outputs, and the file says the threshold 0\.3"):
        reference_for(contract_of(onnx.load(path)), two)


@pytest.mark.parametrize(("pixels", "cells"), [(50, 12), (12, 50), (7, 7), (9, 1)])
def test_interpolation_is_torchs(pixels, cells):
    values = torch.randn(1, 1, cells, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(values, size=pixels, mode="linear", align_corners=False)[0, 0]
    torch.testing.assert_close(interpolation(pixels, cells, 0, cells) @ values[0, 0], expected)


@pytest.mark.parametrize("region", [(1.0, 2.5, 6.0, 9.25), (0.0, 0.0, 8.0, 12.0), (0.3, 0.0, 3.0, 12.0)])
def test_interpolation_of_a_part_is_the_runtimes(region):
    values = np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)
    top, left, height, width = region
    rows, columns = interpolation(40, 8, top, height), interpolation(70, 12, left, width)
    found = (rows @ torch.from_numpy(values) @ columns.T).numpy()
    labels = labels_from_logits(np.stack([np.zeros_like(values), values]), (40, 70), region=region)
    decided = np.abs(found) > 1e-5
    np.testing.assert_array_equal(labels[decided], found[decided] > 0)
