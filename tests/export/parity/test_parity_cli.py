"""sfpp-parity: exit codes, the printed report, JSON and page."""

import json
import re
import shlex

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sfpp.export.demo import demo_checkpoint
from sfpp.export.parity.cli import main, parity_parser
from sfpp.export.parity.differences import Place
from sfpp.export.parity.report import PointReport
from sfpp.export.parity.report_text import percent, shown_points
from sfpp.runtime.contract import OutputSpec
from sfpp.runtime.files import sha256_of
from sfpp.runtime.pixels.pictures import write_image
from tests.export.parity.planted import with_contract, with_scaled_layer

NODE = "encoder/stages.1/blocks.0/ffn/depthwise/Conv"


@pytest.fixture
def run(capsys):
    def command(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def test_a_sound_file(run, exported, tmp_path):
    path = exported("fast").path
    code, out, err = run(path, "--json", tmp_path / "report.json", "--html", tmp_path / "report.html")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "fast.onnx: segformer-b0 fast fp32, 192x128 (width x height), target portable"
    assert re.match(
        r"free +labels agree on (100\.00|99\.\d\d) % \(worst frame .*max error \d\.\de-\d\d, mean", lines[3]
    )
    assert lines[4].startswith("pinned")
    assert re.search(
        r"^stages\.3/blocks\.1/ffn +\d\.\de-\d\d +\d\.\de-\d\d +\d\.\de-\d\d  channel \d+, row", out, re.MULTILINE
    )
    assert re.search(r"^AGREES with PyTorch \(\d+\.\d s\)$", out, re.MULTILINE)
    assert lines[-3:] == [
        f"wrote {tmp_path / 'report.json'}",
        f"wrote {tmp_path / 'report.html'}",
        f"next: sfpp-run {shlex.quote(str(path))} demo",
    ]
    assert "runs in ONNX Runtime" in err
    assert json.loads((tmp_path / "report.json").read_text())["agrees"] is True
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Agrees with PyTorch" in page
    assert "Show the 104 layers inside" in page


def test_a_faulty_file_is_reported_all_the_same(run, exported, tmp_path):
    path = with_scaled_layer(exported("original").path, tmp_path / "faulty.onnx", NODE)
    code, out, _ = run(path, "--json", tmp_path / "report.json", "--html", tmp_path / "report.html")
    assert code == 1
    lines = out.splitlines()
    marked = [line.split()[0] for line in lines if line.endswith("<-- out of tolerance")]
    assert marked == ["stages.1/blocks.0/ffn/depthwise", "stages.1/blocks.0/ffn"]
    place = next(line for line in lines if line.startswith("first disagreement at "))
    assert place.startswith("first disagreement at stages.1/blocks.0/ffn/depthwise: what it computes is 1.98 times")
    weights = shlex.quote(str(demo_checkpoint()))
    assert lines[-1] == f"next: sfpp-export --weights {weights} --variant original --res 192x128   (make it anew)"
    assert json.loads((tmp_path / "report.json").read_text())["place"] == place
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Does not agree with PyTorch" in page
    assert "First disagreement at stages.1/blocks.0/ffn/depthwise" in page
    assert "out of tolerance" in page
    assert page.count("data:image/") == 1  # the frame on which labels differ


def test_pose_on_a_page(run, exported, tmp_path):
    code, out, _ = run(exported("pose").path, "--html", tmp_path / "report.html")
    assert code == 0
    assert "keypoints agree on 100.00 %, apart by 0.00 px in the mean and 0.00 at most" in out
    assert "sure keypoints that are where PyTorch has them" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_accuracy_is_told(run, exported, tmp_path):
    write_image(tmp_path / "a.png", np.full((128, 192, 3), 90, np.uint8))
    (tmp_path / "labels").mkdir()
    write_image(tmp_path / "labels" / "a.png", np.full((128, 192), 12, np.uint8))
    arguments = (exported("original").path, "--images", tmp_path, "--labels", tmp_path / "labels")
    code, _, err = run(*arguments)
    assert code == 2
    assert "12 (100 %), but the model has 11 classes, 0 to 10; give --ignore 12" in err
    labels = np.full((128, 192), 3, np.uint8)
    labels[:32] = 11
    write_image(tmp_path / "labels" / "a.png", labels)
    code, out, _ = run(*arguments, "--ignore", 11, "--html", tmp_path / "report.html")
    assert code == 0
    assert re.search(
        r"^mIoU against the label images of 1 frame: \d+\.\d\d % this file, \d+\.\d\d % PyTorch$", out, re.M
    )
    page = (tmp_path / "report.html").read_text()
    assert "Intersection over union with the label images of 1 frames" in page
    for shown in (out, page):
        assert "25.00 % of the pixels ignored; classes that never occur: sky, building, pole, pavement" in shown
        assert "only one class occurs in the label images, road" in shown


def test_another_network_of_the_same_file_disagrees(run, exported, tmp_path):
    weights = load_file(demo_checkpoint())
    averaged = {key: value * 0.5 if value.is_floating_point() else value for key, value in weights.items()}
    torch.save({"model": weights, "ema": averaged}, tmp_path / "weights.pth")
    facts = {"checkpoint_sha256": sha256_of([tmp_path / "weights.pth"]), "weights_key": "model"}
    path = with_contract(exported("original").path, tmp_path / "plain.onnx", **facts)
    code, out, _ = run(path, "--weights", tmp_path / "weights.pth")
    assert code == 0
    assert "AGREES" in out.split()
    code, out, _ = run(path, "--weights", tmp_path / "weights.pth", "--weights-key", "ema")
    assert code == 1
    assert "note: warning: the file was made from the weights under 'model', and these are those under 'ema'\n" in out
    assert "DISAGREES" in out


def test_notes_are_printed(run, exported, tmp_path):
    path = with_contract(exported("original").path, tmp_path / "odd.onnx", checkpoint_sha256="a" * 64)
    code, out, _ = run(path, "--weights", demo_checkpoint())
    assert code == 0
    assert "note: warning: the file was made from a checkpoint with the SHA-256 aaaaaaaaaaaa..." in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.onnx"], 1, "missing.onnx is not a file"),
        (["MODEL", "--weights", "missing.pth"], 1, "missing.pth"),
        (["MODEL", "--json", f"{__file__}/report.json"], 1, "test_parity_cli.py is no folder"),
        (["MODEL", "--images", "missing.mp4"], 1, "missing.mp4 does not exist"),
        (["MODEL", "--precision", "bf16"], 2, "precision bf16"),
        (["MODEL", "--mode", "pinned"], 2, "this one matches none"),
    ],
)
def test_what_cannot_be_done(run, exported, arguments, code, message):
    arguments = [exported("original").path if argument == "MODEL" else argument for argument in arguments]
    found, _, err = run(*arguments)
    assert found == code
    assert message in err


@pytest.mark.parametrize("arguments", [[], ["model.onnx", "--frames", "0"], ["model.onnx", "--backend", "magic"]])
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: sfpp-parity" in capsys.readouterr().err


def test_help_says_what_pinned_means():
    text = parity_parser().format_help()
    assert "PyTorch is given the graph's matching" in text
    assert text.count("sfpp-parity ") >= 5


def test_a_share_is_not_rounded_up_to_all():
    assert percent(1.0) == "100.00 %"
    assert percent(0.99999) == "99.99 %"
    assert percent(0.5) == "50.00 %"


def test_of_a_large_network_the_worst_of_each_stage_is_shown():
    def point(name, own, *, within=True, detail=False):
        return PointReport(name, own, own, own, Place(0, 0, 0, 0), "frame", within=within, detail=detail)

    blocks = [point(f"stages.2/blocks.{index}/ffn", own=1e-6 * (index == 40)) for index in range(80)]
    wrong = point("stages.1/blocks.3/attention", 0.5, within=False)
    layers = [
        point("stages.1/blocks.3/attention/query", 0.5, within=False, detail=True),
        point("stages.1/blocks.3/attention/output", 0.0, detail=True),
    ]
    others = [point("stages.1/blocks.2/ffn", 0.6), wrong, point("head/stages.0.0/ffn", 0.1), point("logits", 0.0)]
    names = [each.name for each in shown_points([*blocks, *layers, *others])]
    assert names == [
        "stages.2/blocks.40/ffn",
        "stages.1/blocks.3/attention/query",
        "stages.1/blocks.2/ffn",
        "stages.1/blocks.3/attention",
        "head/stages.0.0/ffn",
        "logits",
    ]
    assert shown_points(blocks[:5]) == blocks[:5]


def test_nothing_is_written_over_what_is_read_or_twice(run, tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(b"a model")
    twice = tmp_path / "a.json"
    for outputs in (["--json", model], ["--html", model], ["--json", twice, "--html", twice]):
        code, _, err = run(model, *outputs)
        assert code == 2
        assert f"{outputs[-1]} is named twice, and one would overwrite the other" in err
    (tmp_path / "link.json").hardlink_to(model)
    code, _, err = run(model, "--json", tmp_path / "link.json")
    assert (code, "link.json is named twice" in err) == (2, True)
    assert model.read_bytes() == b"a model"


def test_an_output_that_only_the_contract_knows_is_named(run, exported, tmp_path):
    outputs = (OutputSpec("labels", "labels", 1),)
    path = with_contract(exported("original").path, tmp_path / "odd.onnx", outputs=outputs)
    code, _, err = run(path)
    assert code == 1
    assert "the contract promises the output 'labels', but the model gives logits" in err
