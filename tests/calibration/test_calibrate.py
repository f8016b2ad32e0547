"""The whole way: frames in, files, figures and a page out."""

import itertools
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from sfpp.calibration import calibrate
from sfpp.calibration.cli import main
from sfpp.runtime import load, read_image, resources, write_image
from sfpp.runtime.contract import METADATA_KEY, contract_from_json
from sfpp.runtime.demo import demo_clip
from sfpp.runtime.errors import BackendError, ContractError, MediaError, ModelFileError, UsageError
from sfpp.runtime.files import sha256_of
from sfpp.runtime.resources import FreeMemory
from sfpp.runtime.self_test import self_test
from sfpp.runtime.video import open_source
from tests.tooling.page_reader import assert_sound


def shipped_frames(folder, *, every):
    """Write each of so many frames of the shipped clip into a folder, 192x108."""
    with open_source(str(demo_clip())) as source:
        for frame in source:
            if frame.index % every == 0:
                write_image(folder / f"{frame.name}.png", frame.image_bgr[::5, ::5])
    return folder


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Twelve frames of the shipped clip."""
    return shipped_frames(tmp_path_factory.mktemp("frames"), every=6)


@pytest.fixture(scope="module")
def model(demo_export):
    return demo_export(variant="fast", res="192x128").path


@pytest.fixture(scope="module")
def truth(tmp_path_factory, frames, model):
    """Label pictures: what the model itself says, with a tenth of the pixels wrong."""
    folder = tmp_path_factory.mktemp("labels")
    segmenter = load(model, backend="onnxruntime")
    rng = np.random.default_rng(0)
    for file in frames.iterdir():
        labels = segmenter(read_image(file)).labels
        wrong = rng.random(labels.shape) < 0.1
        write_image(folder / file.name, np.where(wrong, (labels + 1) % 11, labels).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, model, frames, truth):
    """One run with everything, and what it wrote."""
    output = tmp_path_factory.mktemp("output")
    said, seen = [], []
    report = calibrate(
        model,
        frames,
        labels=truth,
        frames=6,
        held_out=3,
        output=output,
        max_drop=5.0,
        backends=["onnxruntime"],
        notify=said.append,
        progress=lambda *facts: seen.append(facts),
    )
    return report, output, said, seen


def contract_of(path):
    texts = {each.key: each.value for each in onnx.load(str(path)).metadata_props}
    return contract_from_json(texts[METADATA_KEY])


def test_the_files_tell_how_they_were_made(run, model):
    report, output, *_ = run
    for precision in ("fp16", "int8"):
        contract = contract_of(output / f"fast.{precision}.onnx")
        assert contract.precision == precision
        assert contract.calibration.model_sha256 == sha256_of([model])
        assert contract.calibration.frames == 6
        assert contract.calibration.selection == "diverse"
        assert contract.variant == "fast"
    assert contract.calibration.frames_sha256 == report.frames.sha256
    assert contract.calibration.method in ("minmax", "entropy", "percentile")


def test_the_files_run_through_the_runtime_and_agree(run, frames):
    report, output, *_ = run
    picture = read_image(next(iter(frames.iterdir())))
    expected = load(report.model, backend="onnxruntime")(picture).labels
    for precision, least in (("fp16", 0.99), ("int8", 0.93)):
        for backend in ("onnxruntime", "openvino"):
            answer = load(output / f"fast.{precision}.onnx", backend=backend, precision="fp32")(picture).labels
            assert np.mean(answer == expected) > least, (precision, backend)


def test_the_files_carry_the_self_test_with_thresholds_of_their_own(run, model):
    _, output, *_ = run
    float32 = contract_of(model).self_test
    thresholds = [float32.threshold]
    for precision, slack in (("fp16", 0.03), ("int8", 0.04)):
        path = output / f"fast.{precision}.onnx"
        test = contract_of(path).self_test
        assert (test.frame, test.answer) == (float32.frame, float32.answer)
        with load(path, backend="onnxruntime", precision="fp32") as opened:
            seen = self_test(opened)
        assert test.threshold == seen.threshold == pytest.approx(seen.agreement - slack, abs=1e-4)
        with load(path, backend="openvino", precision="fp32") as opened:
            assert self_test(opened).passed
        thresholds.append(test.threshold)
    assert sorted(thresholds, reverse=True) == thresholds


def test_figures_are_those_of_the_files(run):
    report, *_ = run
    fp32, fp16, int8 = report.files
    assert (fp32.accuracy.agreement, fp32.drop) == (1.0, 0.0)
    assert 0.3 < fp32.accuracy.mean_iou < 0.95  # a tenth of the truth is wrong on purpose
    for each in (fp16, int8):
        assert each.drop == pytest.approx(100 * (fp32.accuracy.mean_iou - each.accuracy.mean_iou))
        assert each.size_bytes == each.path.stat().st_size < fp32.size_bytes
        assert each.latencies[0].backend == "onnxruntime"
        assert each.latencies[0].p50_ms > 0
    assert fp16.accuracy.agreement >= int8.accuracy.agreement
    assert fp16.rounded.agreement < 1
    assert report.budget_held
    assert report.frames.with_truth
    assert not report.frames.overlapping


def test_blocks_are_ranked_and_histograms_belong_to_layers(run):
    report, *_ = run
    names = [each.name for each in report.sensitivity]
    assert {"encoder/stages.0/blocks.0", "encoder/stages.3/blocks.1", "head"} <= set(names)
    errors = [each.error for each in report.sensitivity]
    assert errors == sorted(errors, reverse=True)
    assert all(each.threshold <= each.largest for each in report.histograms)
    nodes = {node.name for node in onnx.load(str(report.model)).graph.node}
    assert {each.node for each in report.histograms} <= nodes


def test_pictures_are_of_the_frames_that_differ_most(run):
    report, *_ = run
    shares = [each.disagreement for each in report.pictures if each.precision == "int8"]
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)
    assert all(each.image_bgr.shape == (108, 192, 3) for each in report.pictures)


def test_it_says_what_it_does(run):
    report, _, said, seen = run
    assert "evaluating FP32 ..." in said
    assert any(line.startswith("relative squared error of the outputs by range: minmax") for line in said)
    assert set(report.seconds) >= {"observing ranges", "evaluating INT8", "timing"}
    done = [facts[1:] for facts in seen if facts[0] == "observing ranges"]
    assert done == [(index, 6) for index in range(1, 7)]


def test_the_report_is_a_page_and_data(run):
    report, output, *_ = run
    page = (output / "fast.calibration.html").read_text(encoding="utf-8")
    assert_sound(page)
    assert report.recommendation.text[:30] in page
    data = json.loads((output / "fast.calibration.json").read_text(encoding="utf-8"))
    assert [each["precision"] for each in data["files"]] == ["fp32", "fp16", "int8"]
    assert data["files"][2]["drop"] == pytest.approx(report.files[2].drop)


@pytest.mark.slow
def test_ranges_are_known_the_second_time(model, frames, tmp_path, monkeypatch):
    monkeypatch.setenv("SFPP_CACHE", str(tmp_path / "cache"))

    def files():
        said = []
        calibrate(
            model,
            frames,
            frames=2,
            held_out=1,
            output=tmp_path,
            precision=["int8"],
            ranges="minmax",
            latency=False,
            report=False,
            notify=said.append,
        )
        known = any("known from an earlier run" in line for line in said)
        return known, (tmp_path / "fast.int8.onnx").read_bytes()

    first, again = files(), files()
    assert (first[0], again[0]) == (False, True)
    assert first[1] == again[1]


@pytest.mark.slow
def test_ranges_of_frames_that_were_prepared_otherwise_are_not_taken(model, frames, tmp_path, monkeypatch):
    monkeypatch.setenv("SFPP_CACHE", str(tmp_path / "cache"))
    bare, contract = onnx.load(str(model)), contract_of(model)
    del bare.metadata_props[:]
    onnx.save(bare, str(tmp_path / "bare.onnx"))
    for resize in ("letterbox", "stretch"):
        said = []
        facts = replace(contract, input=replace(contract.input, resize=resize))
        (tmp_path / "facts.json").write_text(facts.to_json())
        calibrate(
            tmp_path / "bare.onnx",
            frames,
            contract=tmp_path / "facts.json",
            frames=1,
            held_out=1,
            output=tmp_path,
            precision=["int8"],
            ranges="minmax",
            latency=False,
            report=False,
            notify=said.append,
        )
        assert not any("known from an earlier run" in line for line in said)


def test_a_model_of_lower_precision_is_refused(run, frames, tmp_path):
    _, output, *_ = run
    with pytest.raises(UsageError, match=r"fast\.int8\.onnx is in int8 already; give the float32 file"):
        calibrate(output / "fast.int8.onnx", frames, output=tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_meant_is_refused_before_any_work(model, frames, tmp_path):
    for options, message in (
        ({"precision": ["int4"]}, "precision is 'int4', did you mean 'int8'"),
        ({"precision": []}, "no precision is asked for"),
        ({"ranges": "max"}, "ranges is 'max'"),
        ({"frames": 0}, "expected at least 1"),
        ({"max_drop": -1}, "max_drop is -1"),
        ({"seed": -1}, "seed is -1, expected a whole number from 0"),
        ({"output": model}, "is a file; give a folder"),
        ({"ignore": 11}, "ignore is given, but there are no label images; give them with --labels"),
        ({"boxes": "boxes.json"}, "boxes are for pose models"),
    ):
        with pytest.raises(UsageError, match=message):
            calibrate(model, frames, **options)
    with pytest.raises(MediaError, match="does not exist"):
        calibrate(model, tmp_path / "nothing", output=tmp_path)
    with pytest.raises(ModelFileError, match="is not a file"):
        calibrate(tmp_path / "no.onnx", frames, output=tmp_path)


def test_what_is_read_is_not_written_over(model, frames, tmp_path):
    """Not through links either: a link is followed, and what it leads to would be replaced."""
    own = tmp_path / "own.onnx"
    own.write_bytes(model.read_bytes())
    names = ("own.fp16.onnx", "own.int8.onnx", "own.calibration.html", "own.calibration.json")
    for name, link in itertools.product(names, (Path.symlink_to, Path.hardlink_to)):
        link(tmp_path / name, own)
        with pytest.raises(UsageError, match=f"{name} is named twice, and one would overwrite the other"):
            calibrate(own, frames, output=tmp_path, latency=False)
        (tmp_path / name).unlink()
    assert own.read_bytes() == model.read_bytes()
    (tmp_path / "own.calibration.json").write_text("{}")
    with pytest.raises(UsageError, match=r"own\.calibration\.json is named twice"):
        calibrate(own, frames, contract=tmp_path / "own.calibration.json", output=tmp_path)


def test_a_model_without_a_contract_needs_one(model, frames, tmp_path):
    bare = onnx.load(str(model))
    text = bare.metadata_props[0].value
    del bare.metadata_props[:]
    onnx.save(bare, str(tmp_path / "bare.onnx"))
    options = {"frames": 1, "held_out": 1, "output": tmp_path, "precision": ["fp16"], "latency": False}
    with pytest.raises(ContractError, match="give the facts with --contract"):
        calibrate(tmp_path / "bare.onnx", frames, **options)
    (tmp_path / "facts.json").write_text(text)
    report = calibrate(tmp_path / "bare.onnx", frames, contract=tmp_path / "facts.json", **options)
    assert contract_of(tmp_path / "bare.fp16.onnx").precision == "fp16"
    assert report.files[0].path == tmp_path / "bare.onnx"


def test_a_contract_of_another_model_is_refused(model, frames, tmp_path):
    contract = contract_of(model)
    for other, message in (
        (replace(contract, input=replace(contract.input, name="image")), r"takes 'frame' uint8 .* says 'image' uint8"),
        (replace(contract, input=replace(contract.input, width=200)), r"\(1, 128, 192, 3\), .* \(1, 128, 200, 3\)"),
        (replace(contract, outputs=(replace(contract.outputs[0], name="mask"),)), "gives 'logits', .* says 'mask'"),
    ):
        (tmp_path / "facts.json").write_text(other.to_json())
        with pytest.raises(ContractError, match=message):
            calibrate(model, frames, contract=tmp_path / "facts.json", output=tmp_path)


def test_backends_that_are_not_here_are_told_before_any_work(model, frames, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendError, match=r"nothing can be timed on tensorrt: .*not installed.*; name other backends"):
        calibrate(model, frames, backends=["tensorrt"], output=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_truth_in_which_nothing_counts_is_refused(model, frames, tmp_path):
    for file in frames.iterdir():
        write_image(tmp_path / file.name, np.full(read_image(file).shape[:2], 11, np.uint8))
    with pytest.raises(MediaError, match="holds nothing that counts: every pixel is ignored"):
        calibrate(model, frames, labels=tmp_path, output=tmp_path, latency=False)


def test_a_model_with_open_sizes_is_refused(model, frames, tmp_path):
    opened = onnx.load(str(model))
    opened.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(opened, str(tmp_path / "open.onnx"))
    with pytest.raises(ModelFileError, match="is not fixed; export the model for one size"):
        calibrate(tmp_path / "open.onnx", frames, output=tmp_path)


@pytest.mark.parametrize("precisions", [["fp16"], pytest.param(["fp16", "int8"], marks=pytest.mark.slow)], ids="+".join)
def test_pose_is_evaluated_by_keypoints(demo_export, frames, tmp_path, precisions):
    model = demo_export(task="pose").path
    names = [file.name for file in frames.iterdir()]
    joints = np.random.default_rng(0).uniform(10, 100, (len(names), 14, 3)).astype(np.float32)
    np.savez(tmp_path / "joints.npz", names=np.array(names), joints=joints)
    report = calibrate(
        model,
        frames,
        labels=tmp_path / "joints.npz",
        frames=3,
        held_out=2,
        output=tmp_path,
        precision=precisions,
        ranges="minmax",
        latency=False,
    )
    assert [each.precision for each in report.files] == ["fp32", *precisions]
    for each in report.files:
        assert 0 <= each.accuracy.pck <= 1
        assert len(each.accuracy.pck_by_keypoint) == 14
        assert each.accuracy.mean_iou is None
    assert report.files[1].accuracy.agreement > 0.9


def test_people_in_scenes(demo_export, frames, tmp_path):
    """Frames of a COCO set in which nobody is annotated are no crops of a person; where nobody is, that is said."""
    model = demo_export(task="pose").path
    names = sorted(file.name for file in frames.iterdir())
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    person = {"bbox": [20, 20, 60, 80], "keypoints": [30, 40, 2, 60, 70, 2] * 7}
    people = {"images": images, "annotations": [{"image_id": number, **person} for number in range(3)]}
    (tmp_path / "people.json").write_text(json.dumps(people))
    (tmp_path / "nobody.json").write_text(json.dumps({**people, "annotations": []}))
    options = {"output": tmp_path, "precision": ["fp16"], "latency": False, "report": False}
    report = calibrate(model, frames, labels=tmp_path / "people.json", **options)
    assert report.frames.calibration + report.frames.held_out == 3
    with pytest.raises(MediaError, match=r"there is nobody in the .* validation frames; give frames of people"):
        calibrate(model, frames, boxes=tmp_path / "nobody.json", **options)


def test_the_command(model, frames, tmp_path, capsys):
    command = [str(model), "--images", str(frames), "--precision", "fp16", "--frames", "64", "--held-out", "2"]
    assert main([*command, "-o", str(tmp_path), "--no-latency"]) == 0
    captured = capsys.readouterr()
    assert "warning: " in captured.err
    assert "frames to calibrate with, 64 were asked for" in captured.err
    assert "FP16" in captured.out
    assert f"report: {tmp_path / 'fast.calibration.html'}" in captured.out
    assert "next: sfpp-run " in captured.out
    assert main([*command[:-5], "fp15"]) == 2
    assert "precision is 'fp15'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_budget_that_cannot_hold_is_said_and_is_a_failure(model, frames, tmp_path, capsys):
    command = [str(model), "--images", str(frames), "--precision", "int8", "--frames", "2", "--held-out", "2"]
    code = main([*command, "-o", str(tmp_path), "--no-latency", "--max-drop", "0", "--ranges", "minmax"])
    captured = capsys.readouterr()
    assert code == 1
    assert "no choice of nodes keeps what is lost within 0" in captured.err
    assert (tmp_path / "fast.int8.onnx").is_file()


@pytest.mark.parametrize(
    ("options", "work"),
    [((), r"timing fast\.onnx and what is made of it"), (("--no-latency",), r"calibrating fast\.onnx")],
)
def test_a_calibration_that_does_not_fit_is_refused(model, frames, tmp_path, capsys, monkeypatch, options, work):
    monkeypatch.setattr(resources, "free_memory", lambda: FreeMemory(1000, "what a test allows"))
    assert main([str(model), "--images", str(frames), "-o", str(tmp_path), *options]) == 1
    said = capsys.readouterr().err.splitlines()
    assert re.match(
        rf"sfpp-calibrate: error: {work} takes about 0\.\d GB of memory, and 0\.0 GB are left of what a test allows; ",
        said[-1],
    )
    assert ("leave timing off (--no-latency)" in said[-1]) == (not options)
    assert not any("evaluating" in line for line in said)
    assert list(tmp_path.iterdir()) == []
