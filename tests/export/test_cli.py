"""The command ``sfpp-export``: help that teaches, errors of one line, and a whole trip."""

import inspect
import json
import logging
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import sfpp.export
import sfpp.export.demo
from sfpp.export import cli, export_onnx, to_onnx
from sfpp.export.catalog import VARIANTS, recipe_from_words
from sfpp.export.demo import demo_checkpoint, demo_frame
from sfpp.export.settings import ExportSettings
from sfpp.runtime import load, read_image
from sfpp.runtime.errors import VerificationError

RES = "160x128"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_failing(capsys, *arguments):
    """Run the command; return its exit code and what it said last."""
    try:
        code = cli.main(arguments)
    except SystemExit as end:
        code = end.code
    told = capsys.readouterr()
    assert told.out == ""
    return code, told.err.splitlines()


def test_help_is_instant():
    program = """
import sys
from sfpp.export.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0, end.code
heavy = {"torch", "onnx", "onnxruntime", "cv2", "safetensors", "transformers", "tqdm"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "sfpp-export --variant fast --res 3840x2160" in done.stdout


def test_help_explains_the_variants_that_there_are():
    text = cli.build_parser().format_help()
    section = text.partition("variants")[2].partition("\n\n")[0]
    names = re.findall(r"^  (\S+)  ", section, flags=re.MULTILINE)
    assert names == [*VARIANTS, "isr", "FILE.json"]


def test_the_recipe_in_the_help_is_a_recipe():
    recipe = re.search(r"\[\{.*\]", cli.build_parser().format_help()).group()
    assert recipe_from_words(json.loads(recipe)).stages[0].key_value.ratio == 0.6


def test_the_examples_in_the_help_are_understood():
    examples = re.findall(r"^  sfpp-export (.*?)(?:  .*)?$", cli.build_parser().format_help(), flags=re.MULTILINE)
    assert len(examples) == 7
    for example in examples:
        arguments = cli.build_parser().parse_args(shlex.split(example))
        assert arguments.variant in VARIANTS


def test_options_are_those_of_the_settings_and_the_function():
    defaults = vars(cli.build_parser().parse_args([]))
    assert defaults == {**vars(ExportSettings()), "weights": None, "path": None, "log_level": logging.INFO}
    assert set(inspect.signature(export_onnx).parameters) == {"weights", "path", "notify", "options"}


def test_from_the_demonstration_weights_to_labels(here, capsys):
    assert cli.main(["--variant", "fast", "--res", RES]) == 0
    told = capsys.readouterr()
    name = f"segformer-b0-fast-{RES}.onnx"
    assert [path.name for path in here.iterdir()] == [name]
    steps = [line.partition(" ")[0] for line in told.err.splitlines()]
    assert steps == ["reading", "tracing", "checking", "adding", "writing"]
    lines = told.out.splitlines()
    assert re.fullmatch(rf"{re.escape(name)}  \(1\d\.\d MB, \d+\.\d s\)", lines[0])
    assert (
        lines[1] == "  segformer-b0 fast, 160x128 (width x height), 11 classes, logits, opset 17, 0.3 G multiply-adds"
    )
    assert re.match(r"  against PyTorch: max error \S+, mean \S+, labels agree on \d+\.\d\d%", lines[2])
    assert lines[3:7] == [
        "  stage 1: 32x40 grid, queries 1280, keys/values 20 -> 2",
        "  stage 2: 16x20 grid, queries 320, keys/values 20 -> 2",
        "  stage 3: 8x10 grid, queries 80 -> 8, keys/values 20",
        "  stage 4: 4x5 grid, queries 20 -> 2, keys/values 20",
    ]
    assert "no commercial use" in lines[7]
    assert lines[8] == (
        "  note: each merged key weighs as one token, as published; unless the network was trained so, --variant fast+ "
        "is nearer to original at the same cost"
    )
    assert lines[9:] == [f"next: sfpp-run {name} demo"]
    with load(here / name) as model:
        frame_bgr = read_image(demo_frame())
        labels = model(frame_bgr).labels
    assert labels.shape == frame_bgr.shape[:2]
    assert len(set(labels.ravel().tolist())) > 3


def test_matching_and_target_are_in_the_name_and_in_the_words(here, capsys):
    options = ["--variant", "fast", "--matching", "local", "--share-matching", "all", "--target", "openvino"]
    assert cli.main([*options, "--res", "128x128"]) == 0
    lines = capsys.readouterr().out.splitlines()
    name = "segformer-b0-fast-local-shareall-128x128-openvino.onnx"
    assert [path.name for path in here.iterdir()] == [name]
    assert lines[1].startswith("  segformer-b0 fast with local matching shared by all blocks for openvino, 128x128 ")
    assert lines[-1] == f"next: sfpp-run {name} demo"


def test_sizes_are_in_the_name_and_in_the_words(here, capsys):
    assert cli.main(["--variant", "kv2x2", "--size-weighted", "--res", "160x128"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [path.name for path in here.iterdir()] == ["segformer-b0-kv2x2-sized-160x128.onnx"]
    assert lines[1].startswith("  segformer-b0 kv2x2 with keys weighed by size, 160x128 ")


def test_every_option_reaches_the_function(monkeypatch, capsys):
    given = {}

    def remember(**options):
        given.update(options)
        raise VerificationError("enough")

    monkeypatch.setattr(sfpp.export, "export_onnx", remember, raising=False)
    arguments = {
        "weights": "w.pth",
        "weights-key": "ema",
        "variant": "hq",
        "isr": "2211-222",
        "matching": "local",
        "share-matching": "all",
        "target": "openvino",
        "res": "64x32",
        "task": "pose",
        "output": "labels",
        "input": "float32",
        "batch": "3",
        "opset": "18",
        "mean": "1 2 3",
        "std": "4 5 6",
        "color-order": "BGR",
        "resize": "stretch",
        "interpolation": "linear",
        "threshold": "0.3",
        "classes": "voc",
        "keypoints": "coco17",
        "image": "i.png",
        "path": "o.onnx",
    }
    words = [word for name, value in arguments.items() for word in (f"--{name}", *value.split())]
    flags = ("--multi-label", "--no-align-corners", "--size-weighted", "--trained-with-merging")
    code, lines = run_failing(capsys, *words, *flags)
    assert (code, lines) == (1, ["sfpp-export: error: enough"])
    given.pop("notify")
    expected = {name.replace("-", "_"): value for name, value in arguments.items()}
    numbers = {"batch": 3, "opset": 18, "share_matching": 0, "threshold": 0.3, "mean": [1, 2, 3], "std": [4, 5, 6]}
    switched = {"multi_label": True, "align_corners": False, "size_weighted": True, "trained_with_merging": True}
    assert given == {**expected, **numbers, **switched}


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "every", ""])
def test_sharing_takes_a_number_of_blocks_or_all(capsys, text):
    with pytest.raises(SystemExit) as stop:
        cli.build_parser().parse_args(["--share-matching", text])
    assert stop.value.code == 2
    assert "expected 1 or more, or all" in capsys.readouterr().err


def test_the_next_command_can_be_pasted(here, capsys):
    assert cli.main(["--res", "64x64", "-o", "my model's.onnx"]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert shlex.split(last) == ["next:", "sfpp-run", "my model's.onnx", "demo"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--res", "0x0"], "--res is 0x0 (width x height)"),
        (["--res", "3840"], "--res is '3840', expected WIDTHxHEIGHT"),
        (["--res", "16x16"], "is too small"),
        (["--variant", "fsat"], "did you mean 'fast'?"),
        (["--variant", "big.json", "--res", RES], "stage 4: a cell of 5x2 tokens does not fit a grid of 4x5"),
        (["--variant", "wrong.json"], "wrong.json, stage 1: unknown q_mode 'bsm_hq'"),
        (["--variant", "text.json"], "text.json is not valid JSON"),
        (["--variant", "nowhere.json"], "does not exist"),
        (["--output", "mask"], "argument --output: invalid choice: 'mask'"),
        (["--batch", "many"], "batch is 'many'"),
        (["--batch", "0"], "batch is 0"),
        (["--opset", "12"], "opset is 12, expected 17 to 20"),
        (["--classes", "voc"], "'voc' names 21 classes, but the model has 11"),
        (["-o", "model.engine"], "ends in .onnx"),
        (["model.pth"], "unrecognized arguments: model.pth"),
    ],
)
def test_wrong_usage_is_one_line_and_two(here, capsys, arguments, message):
    (here / "big.json").write_text('[{}, {}, {}, {"q_mode": "bsm", "q_r": 0.5, "q_sx": 2, "q_sy": 5}]')
    (here / "wrong.json").write_text('[{"q_mode": "bsm_hq", "q_r": 0.5, "q_sx": 2, "q_sy": 2}, {}, {}, {}]')
    (here / "text.json").write_text("fast\nplease")
    code, lines = run_failing(capsys, *arguments)
    assert code == 2
    assert lines[-1].startswith("sfpp-export: error: ")
    assert message in lines[-1]
    assert sum("error" in line for line in lines) == 1
    assert sorted(path.name for path in here.iterdir()) == ["big.json", "text.json", "wrong.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "text.pth"], "text.pth"),
        (["--weights", "nowhere.pth"], "nowhere.pth"),
        (["--image", "text.pth"], "text.pth"),
        (["-o", "text.pth/model.onnx"], "text.pth is no folder"),
    ],
)
def test_a_failure_is_one_line_and_one(here, capsys, arguments, message):
    (here / "text.pth").write_text("these are\nno weights\n")
    code, lines = run_failing(capsys, *arguments)
    assert code == 1
    assert lines[-1].startswith("sfpp-export: error: ")
    assert message in lines[-1]
    assert [line for line in lines[:-1] if not line.endswith(" ...")] == []
    assert [path.name for path in here.iterdir()] == ["text.pth"]


def test_a_failed_check_leaves_no_file_and_one_line(here, capsys, monkeypatch):
    def disagree(report, path):
        raise VerificationError(f"{path.name} does not agree:\nfirst\nsecond")

    monkeypatch.setattr(to_onnx, "require_parity", disagree)
    code, lines = run_failing(capsys, "--res", "64x64")
    assert code == 1
    assert lines[-1] == "sfpp-export: error: segformer-b0-original-64x64.onnx does not agree: first second"
    assert list(here.iterdir()) == []


def test_ctrl_c_leaves_no_file(here, capsys, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(to_onnx, "compare_with_pytorch", interrupted)
    code, lines = run_failing(capsys, "--res", "64x64")
    assert (code, lines[-1]) == (130, "sfpp-export: stopped")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("library", ["torch", "onnx_graphsurgeon", "onnxruntime"])
def test_a_missing_library_names_the_extra(library):
    program = f"""
import sys
sys.modules[{library!r}] = None
from sfpp.export.cli import main
sys.exit(main(["--res", "64x64"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    *_, last = done.stderr.splitlines()
    assert last.startswith("sfpp-export: error: ")
    assert f"needs {library}, which is not installed: pip install 'sfpp[export]'" in last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_what_is_read_is_not_written_over(here, capsys, link):
    for name, option in (
        ("classes.txt", "--classes"),
        ("picture.jpg", "--image"),
        ("weights.safetensors", "--weights"),
    ):
        own = here / name
        if name.endswith("safetensors"):
            own.write_bytes(demo_checkpoint().read_bytes())
        elif name.endswith("jpg"):
            own.write_bytes(demo_frame().read_bytes())
        else:
            own.write_text("\n".join(f"class {index}" for index in range(11)))
        before = own.read_bytes()
        link(here / "out.onnx", own)
        code, told = run_failing(capsys, "--res", RES, option, name, "-o", "out.onnx")
        assert (code, "out.onnx is named twice, and one would overwrite the other" in told[-1]) == (2, True), told
        assert own.read_bytes() == before
        (here / "out.onnx").unlink()


def test_an_export_through_a_link(here, capsys):
    (here / "link.onnx").symlink_to("real.onnx")
    assert cli.main(["--res", "64x64", "-o", "link.onnx"]) == 0
    assert (here / "link.onnx").is_symlink()
    assert load("real.onnx", backend="onnxruntime").contract.classes
