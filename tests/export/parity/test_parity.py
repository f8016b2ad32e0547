"""The whole comparison: its figures against slow obvious ones, its modes, tasks, precisions and refusals."""

import dataclasses
import json
import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from sfpp.calibration.fp16.fp16_model import fp16_model
from sfpp.calibration.int8.equalize import equalized
from sfpp.calibration.int8.int8_model import int8_model
from sfpp.calibration.int8.quantizable import quantizable
from sfpp.export import export_onnx
from sfpp.export.checkpoints import read_checkpoint
from sfpp.export.demo import demo_checkpoint, demo_frame
from sfpp.export.parity import parity, probed_model, sides
from sfpp.export.to_onnx import learned_model
from sfpp.runtime.contract import METADATA_KEY, CalibrationRecord
from sfpp.runtime.demo import demo_clip
from sfpp.runtime.errors import BackendError, ContractError, MediaError, UsageError
from sfpp.runtime.images import batch_from_frames
from sfpp.runtime.model_file import load_segmenter
from sfpp.runtime.pixels.pictures import read_image, write_image
from sfpp.tooling.graph import read_model
from sfpp.tooling.metrics import ConfusionMatrix
from tests.calibration.int8.int8_graphs import symmetric
from tests.export.parity.planted import contract_of, with_contract, with_scaled_layer

FUSION = "head/parts.0.0/Conv"
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three frames of the input's shape, so that nothing is resized, and labels for two of them."""
    folder = tmp_path_factory.mktemp("frames")
    image = read_image(demo_frame())
    (folder / "labels").mkdir()
    random = np.random.default_rng(2)
    for index in range(3):
        write_image(folder / f"frame{index}.png", np.ascontiguousarray(image[200 + 60 * index :][:128, 300:492]))
        if index:
            labels = random.integers(0, 11, (128, 192), np.uint8)
            labels[:30] = 255
            write_image(folder / "labels" / f"frame{index}.png", labels)
    return folder


def pytorch_logits(frame_bgr):
    """The network on a frame of its own size, prepared by hand."""
    rgb = torch.from_numpy(frame_bgr[..., ::-1].copy()).float()
    image = ((rgb - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1)[None]
    with torch.no_grad():
        return learned_model(read_checkpoint(demo_checkpoint()))(image)


def test_the_figures_are_those_of_plain_arithmetic(exported, pictures, tmp_path):
    path = with_scaled_layer(exported("original").path, tmp_path / "faulty.onnx", FUSION, factor=1.5)
    report = parity(path, images=pictures, labels=pictures / "labels")

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    same, largest, mean, relative = [], [], [], []
    among, against_truth, own = ConfusionMatrix(11), ConfusionMatrix(11, ignore=255), ConfusionMatrix(11, ignore=255)
    for index in range(3):
        frame = read_image(pictures / f"frame{index}.png")
        expected = pytorch_logits(frame)
        answer = torch.from_numpy(session.run(None, {"frame": frame[None, ..., ::-1].copy()})[0])
        apart = (answer - expected).abs()
        largest.append(float(apart.max()))
        mean.append(float(apart.mean()))
        relative.append(float(apart.square().mean().sqrt() / expected.square().mean().sqrt()))
        labels = [F.interpolate(each, (128, 192), mode="bilinear").argmax(1)[0].numpy() for each in (answer, expected)]
        same.append(np.mean(labels[0] == labels[1]))
        among.update(*labels)
        if index:
            truth = read_image(pictures / "labels" / f"frame{index}.png")[..., 0]
            own.update(labels[0], truth)
            against_truth.update(labels[1], truth)

    (free,) = report.outputs
    assert report.frames == ("frame0", "frame1", "frame2")
    assert 0.1 < min(same) < 0.99
    assert free.same == pytest.approx(np.mean(same), abs=1e-3)
    assert free.worst_same == pytest.approx(min(same), abs=1e-3)
    assert free.mean_iou == pytest.approx(among.mean_iou(), abs=1e-3)
    assert free.max_error == pytest.approx(max(largest), rel=1e-3)
    assert free.mean_error == pytest.approx(np.mean(mean), rel=1e-3)
    assert free.relative_error == pytest.approx(max(relative), rel=1e-3)
    assert report.truth.frames == 2
    assert report.truth.file_mean_iou == pytest.approx(own.mean_iou(), abs=1e-3)
    assert report.truth.pytorch_mean_iou == pytest.approx(against_truth.mean_iou(), abs=1e-3)
    assert [picture.same for picture in report.pictures] == sorted(same)
    assert not report.agrees


def test_free_and_pinned(exported, pictures):
    path = exported("fast").path
    both = parity(path, images=pictures)
    assert [output.mode for output in both.outputs] == ["free", "pinned"]
    assert both.outputs[1].relative_error < 1e-5
    assert {point.name for point in both.points if point.gap is not None} == {
        f"stages.{stage}/blocks.{block}/attention" for stage in range(4) for block in range(2)
    }
    assert [output.mode for output in parity(path, frames=1, mode="free").outputs] == ["free"]
    assert [output.mode for output in parity(path, frames=1, mode="pinned").outputs] == ["pinned"]
    original = exported("original").path
    assert [output.mode for output in parity(original, frames=1, mode="both").outputs] == ["free"]
    with pytest.raises(UsageError, match="--mode pinned is for variants that match tokens, and this one matches none"):
        parity(original, mode="pinned")


def test_pinning_takes_near_ties_out_of_the_comparison(exported, tmp_path):
    """On a blank picture any partner is as good as any other; what is left must be exact all the same."""
    write_image(tmp_path / "blank.png", np.full((128, 192, 3), 127, np.uint8))
    report = parity(exported("fast").path, images=tmp_path / "blank.png")
    assert report.agrees
    assert report.outputs[1].relative_error < 1e-5
    assert report.outputs[1].same == 1


@pytest.mark.slow
def test_several_runs_show_what_one_does(exported, pictures, monkeypatch):
    one = parity(exported("fast").path, images=pictures, frames=1)
    make = probed_model.ProbedModel
    monkeypatch.setattr(sides, "ProbedModel", lambda *inputs, **options: make(*inputs, **options, limit=1 << 21))
    several = parity(exported("fast").path, images=pictures, frames=1)
    assert several.agrees
    assert {point.name for point in several.points} == {point.name for point in one.points}
    for point in several.points:
        assert point.own < 2e-5
        assert point.gap is None or point.gap < 1e-5


def test_layers_are_left_out_where_they_are_too_many(exported, monkeypatch, tmp_path):
    monkeypatch.setattr(sides, "DETAILS_BYTES_LIMIT", 0)
    model = exported("edaformer")
    report = parity(model.path, weights=model.weights, frames=1)
    assert report.agrees
    assert not any(point.detail for point in report.points)
    # A part that differs is then looked into.
    node = "encoder/stages.1/blocks.1/ffn/depthwise/Conv"
    report = parity(with_scaled_layer(model.path, tmp_path / "f.onnx", node), weights=model.weights, frames=1)
    assert report.place.startswith("first disagreement at stages.1/blocks.1/ffn/depthwise: ")
    assert [point.name for point in report.points if not point.within] == ["stages.1/blocks.1/ffn"]


def test_labels_in_the_graph(demo_export, pictures, tmp_path):
    path = demo_export(output="labels", res="192x128").path
    report = parity(path, images=pictures)
    assert report.agrees
    (free,) = report.outputs
    assert (free.max_error, free.relative_error) == (None, None)
    assert free.same > 0.999
    node = "head/parts.0.4/Conv"
    faulty = parity(with_scaled_layer(path, tmp_path / "faulty.onnx", node), images=pictures)
    assert faulty.place.startswith("first disagreement at logits: ")


def test_a_batch_holds_several_frames(pictures, tmp_path):
    path = export_onnx(path=tmp_path / "batch.onnx", variant="fast", batch=2, res="192x128").path
    report = parity(path, images=pictures)
    assert report.agrees
    assert report.frames == ("frame0", "frame1", "frame2")
    faulty = with_scaled_layer(path, tmp_path / "faulty.onnx", "encoder/stages.3/blocks.0/ffn/expand/Conv")
    assert "stages.3/blocks.0/ffn/expand" in parity(faulty, images=pictures).place


def test_pose(exported):
    report = parity(exported("pose").path)
    mean, largest = report.outputs[0].distance_px
    assert mean <= largest < 0.01
    assert report.outputs[0].mean_iou is None
    with pytest.raises(UsageError, match="label images are for segmentation, and this is a pose model"):
        parity(exported("pose").path, labels="anywhere")


@pytest.mark.parametrize("precision", [pytest.param("fp32", marks=pytest.mark.slow), None])
def test_another_backend_shows_its_insides_too(exported, precision):
    pytest.importorskip("openvino")
    report = parity(exported("fast").path, backend="openvino", precision=precision, frames=1)
    assert report.agrees
    assert report.backend.startswith("OpenVINO")
    assert report.points_backend == report.backend
    assert report.precision in ("fp32", "bf16")
    worst = max(point.own for point in report.points)
    assert worst < 2e-5 if report.precision == "fp32" else 1e-3 < worst < 6e-2


def test_a_backend_that_takes_no_more_outputs(exported, monkeypatch):
    def refuse(self, group):
        raise BackendError("no more outputs")

    monkeypatch.setattr(probed_model.ProbedModel, "_open", refuse)
    path = exported("original").path
    report = parity(path, frames=1)
    assert report.agrees
    assert (report.points, report.points_backend) == ((), "")
    assert report.notes[0] == "the graph's insides were not compared, only its outputs: no more outputs"
    with pytest.raises(BackendError, match="no more outputs"):
        parity(exported("fast").path, frames=1, mode="pinned")


def written(model, contract, precision, path):
    onnx.helper.set_model_props(model, {METADATA_KEY: dataclasses.replace(contract, precision=precision).to_json()})
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def lowered(exported, tmp_path_factory):
    """The merging model in FP16, and with all its products in INT8."""
    source, folder = exported("fast").path, tmp_path_factory.mktemp("lowered")
    model = read_model(source)
    contract = contract_of(model)
    names = sorted({product.activation for product in quantizable(model)})
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    frame, _ = batch_from_frames([read_image(demo_frame())], contract.input)
    values = session.run(names, {contract.input.name: frame})
    thresholds = {name: float(np.percentile(np.abs(each), 99.99)) for name, each in zip(names, values, strict=True)}
    return {
        "fp16": written(fp16_model(model), contract, "fp16", folder / "fp16.onnx"),
        "int8": written(int8_model(model, symmetric(thresholds)), contract, "int8", folder / "int8.onnx"),
    }


@pytest.mark.slow
def test_channels_of_like_size_are_no_disagreement(tmp_path):
    """Other values inside, the same answer: what is not comparable is left out where the contract says so."""
    model = read_model(export_onnx(path=tmp_path / "plain.onnx", res="192x128").path)
    contract = contract_of(model)
    frame, _ = batch_from_frames([read_image(demo_frame())], contract.input)
    scaled = equalized(model, [{contract.input.name: frame}])
    path = written(scaled, contract, "fp32", tmp_path / "untold.onnx")
    assert not parity(path, frames=1).agrees
    record = CalibrationRecord(model_sha256="", frames_sha256="", frames=1, equalized=True)
    path = written(scaled, dataclasses.replace(contract, calibration=record), "fp32", tmp_path / "told.onnx")
    report = parity(path, frames=1)
    assert report.agrees, report.place
    assert {"stages.0/patch_embed", "stages.3/blocks.1/ffn", "logits"} <= {point.name for point in report.points}
    assert "stages.0/norm" not in {point.name for point in report.points}


@pytest.mark.parametrize("precision", [pytest.param("fp16", marks=pytest.mark.slow), "int8"])
def test_files_of_lower_precision(lowered, tmp_path, precision):
    report = parity(lowered[precision], frames=1)
    assert (report.precision, report.agrees) == (precision, True), report.place
    assert len(report.points) == 135  # every part and layer of a B0 is found in them too
    # Half or twice a layer is told from rounding, also in a layer whose effect is as small as that of rounding.
    for node, place in (
        ("encoder/stages.0/blocks.0/attention/query/MatMul", "stages.0/blocks.0/attention/query"),
        ("encoder/stages.2/blocks.1/ffn/expand/Conv", "stages.2/blocks.1/ffn/expand"),
    ):
        for factor in (2.0, 0.5):
            faulty = with_scaled_layer(lowered[precision], tmp_path / "faulty.onnx", node, factor=factor)
            report = parity(faulty, frames=1)
            assert report.place.startswith(f"first disagreement at {place}: what it computes is ")
            (layer,) = [point for point in report.points if point.name == place]
            assert layer.gain == pytest.approx(factor, abs=0.05)


def test_a_wrong_color_order_in_int8(lowered, tmp_path):
    path = with_contract(lowered["int8"], tmp_path / "faulty.onnx", input={"color_order": "BGR"})
    assert "with red and blue exchanged it agrees - the color order is wrong" in parity(path, frames=1).place


def test_a_video(exported):
    report = parity(exported("original").path, images=demo_clip(), frames=2)
    assert report.agrees
    assert len(report.frames) == 2


def test_truth_that_does_not_fit(exported, pictures, tmp_path):
    path = exported("original").path
    with pytest.raises(
        UsageError, match=r"255 \(\d+ %\).* has 11 classes, 0 to 10; ignored is 11: give --ignore 11,255"
    ):
        parity(path, images=pictures, labels=pictures / "labels", ignore=11)
    with pytest.raises(MediaError, match="holds no label images"):
        parity(path, images=pictures, labels=tmp_path)
    write_image(tmp_path / "other.png", np.zeros((128, 192), np.uint8))
    with pytest.raises(UsageError, match="none of the frames has a label image of its name"):
        parity(path, images=pictures, labels=tmp_path)
    for file in (pictures / "labels").iterdir():
        write_image(tmp_path / file.name, np.full(read_image(file).shape[:2], 255, np.uint8))
    with pytest.raises(UsageError, match=r"every pixel of the label images in .* is ignored"):
        parity(path, images=pictures, labels=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "wild"}, "mode is 'wild', expected one of free, pinned, both"),
        ({"frames": 0}, "frames is 0, expected a whole number from 1"),
        ({"ignore": "255"}, "ignore is .*, expected values of the label images, whole numbers"),
        ({"backend": "onnx"}, "backend is 'onnx', expected one of auto, .*, did you mean 'onnxruntime'"),
    ],
)
def test_what_cannot_be_meant(exported, options, message):
    with pytest.raises(UsageError, match=message):
        parity(exported("original").path, **options)


def test_a_file_without_a_contract(exported, tmp_path):
    model = onnx.load(exported("original").path)
    contract = contract_of(model)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(ContractError, match=r"foreign\.onnx carries no contract .* or give the facts with --contract"):
        parity(tmp_path / "foreign.onnx")
    assert parity(tmp_path / "foreign.onnx", contract=contract, frames=1).agrees


def test_an_output_of_another_size_is_no_crash(exported, tmp_path):
    """The contract belongs to another file: one that answers on a grid of half the size."""
    small = export_onnx(path=tmp_path / "down.onnx", variant="downsample", res="192x128").path
    report = parity(with_contract(small, tmp_path / "faulty.onnx", variant="original"), frames=1)
    assert report.place.startswith("merging is not as the contract says")
    assert "these are the tokens of the variant 'downsample'" in report.place
    assert "the file's output is 1x11x16x24, PyTorch's is 1x11x32x48" in report.failures


def test_json_holds_everything_but_pictures(exported, tmp_path):
    path = with_scaled_layer(
        exported("fast").path, tmp_path / "f.onnx", "encoder/stages.2/blocks.0/ffn/depthwise/Conv", factor=math.inf
    )
    report = parity(path, frames=1)
    report.write_json(tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert content["agrees"] is False
    assert content["place"] == report.place
    assert len(content["points"]) == len(report.points)
    assert content["points"][-1]["own"] is None  # NaN
    assert content["contract"]["variant"] == "fast"
    assert all("image_bgr" not in picture for picture in content["pictures"])


def test_a_sound_file_shows_where_labels_differ(exported, pictures, tmp_path):
    path = with_scaled_layer(exported("original").path, tmp_path / "f.onnx", FUSION, factor=1.5)
    report = parity(path, images=pictures)
    (picture, *_) = report.pictures
    frame = read_image(pictures / f"{picture.name}.png")
    with load_segmenter(path, backend="onnxruntime") as model:
        labels = model(frame).labels
    raised = F.interpolate(pytorch_logits(frame), (128, 192), mode="bilinear").argmax(1)[0].numpy()
    yellow = (picture.image_bgr == (66, 228, 240)).all(2)
    assert np.mean(yellow == (labels != raised)) > 0.999


def test_progress_is_told(exported, pictures):
    told = []
    parity(exported("original").path, images=pictures, progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
