"""The command as a user meets it: mostly in this process, and in one of its own for signals and limits."""

import fcntl
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from sfpp.runtime.cli.run import main, parsed
from sfpp.runtime.contract import METADATA_KEY
from sfpp.runtime.pixels.pictures import write_image
from sfpp.runtime.segmentation import Segmenter
from tests.runtime.video.clips import CONTRACT, index_of, picture, read_clip, rgb_segmenter, write_clip

# A model that takes its time and tells stderr of every frame.
ON_THEIR_WAY = 12  # six stages, each with a frame in hand and one waiting
SLOW_COMMAND = """
import sys, time
from sfpp.runtime.cli.run import main
from sfpp.runtime.segmentation import Segmenter
infer = Segmenter.infer
def slow(self, prepared):
    print("frame", file=sys.stderr, flush=True)
    time.sleep(0.01)
    return infer(self, prepared)
Segmenter.infer = slow
sys.exit(main(sys.argv[1:]))
"""


def write_model(path, *, with_contract=True):
    """The model of ``rgb_segmenter`` as an ONNX file."""
    spec = CONTRACT.input
    nodes = [
        helper.make_node("Cast", ["frame"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["values"], ["channels"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["channels"], ["logits"], kernel_shape=[4, 4], strides=[4, 4]),
    ]
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, spec.height, spec.width, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3, spec.height // 4, spec.width // 4])
    graph = helper.make_graph(nodes, "rgb", [frame], [logits])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if with_contract:
        helper.set_model_props(model, {METADATA_KEY: CONTRACT.to_json()})
    onnx.save(model, path)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a model, a clip and a picture in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SFPP_CACHE", str(tmp_path.with_name(f"{tmp_path.name}-cache")))
    write_model(tmp_path / "model.onnx")
    write_clip(tmp_path / "clip.mp4", frames=12)
    cv2.imwrite(str(tmp_path / "photo.png"), picture(0))
    return tmp_path


def new_files(here):
    return sorted(path.name for path in here.iterdir() if path.name not in ("model.onnx", "clip.mp4", "photo.png"))


def hangs_up():
    """In a child process: a signal ends it, whatever started the tests (``nohup`` has it ignored)."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def start(*arguments, program=SLOW_COMMAND, preexec_fn=hangs_up, **options):
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=preexec_fn,
        **options,
    )


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "sfpp-run model.onnx street.mp4" in out
    assert "sfpp-run pose.onnx jump.mp4 --detector yolox.onnx --detect-every 5" in out
    assert "sfpp-run model.onnx --self-test " in out
    assert "1 failed (a self-test too)" in out
    assert "segmentation models:" in out
    backends = "onnxruntime,onnxruntime-cuda,onnxruntime-tensorrt,openvino,tensorrt,tensorrt-rtx"
    assert f"--backend {{{backends}}}" in "".join(out.split()).replace("--backend", "--backend ")
    assert "--precision {fp32,bf16,fp16}" in out


def test_a_video_becomes_a_video_named_after_it(here, capsys):
    assert main(["model.onnx", "clip.mp4", "--alpha", "0", "--no-legend"]) == 0
    assert new_files(here) == ["clip-sfpp.mp4"]
    assert [index_of(image) for image in read_clip(here / "clip-sfpp.mp4")] == list(range(12))
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert lines[0].split() == ["stage", "frames", "p50", "ms", "p90", "ms", "p99", "ms", "busy", "%"]
    assert [line.split()[0] for line in lines[1:7]] == ["decode", "prepare", "infer", "labels", "draw", "encode"]
    assert re.fullmatch(
        r"\d+\.\d frames a second; the slowest stage, \w+, alone would allow \d+\.\d \(\d+ %\)", lines[7]
    )
    assert lines[-2:] == ["12 frames of clip", "wrote clip-sfpp.mp4"]
    assert told.err.startswith("sfpp-run: model.onnx runs in ")
    assert "chosen because" in told.err


def test_backend_and_precision_are_the_users_choice(here, capsys):
    assert main(["model.onnx", "photo.png", "--backend", "onnxruntime", "--precision", "fp32"]) == 0
    assert re.match(
        r"sfpp-run: model\.onnx runs in ONNX Runtime \S+ on the CPU: as asked for$", capsys.readouterr().err
    )
    assert main(["model.onnx", "photo.png", "--backend", "onnxruntime", "--precision", "fp16"]) == 2
    assert "precision fp16 was asked for, but ONNX Runtime on the CPU computes in fp32" in capsys.readouterr().err


def test_a_picture_becomes_a_picture_and_shares(here, capsys):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :, 0] = 200
    image[:, :16] = (0, 0, 200)
    cv2.imwrite(str(here / "photo.png"), image)
    assert main(["model.onnx", "photo.png", "--alpha", "1", "--no-legend"]) == 0
    assert new_files(here) == ["photo-sfpp.png"]
    overlay = cv2.imread(str(here / "photo-sfpp.png"))
    np.testing.assert_array_equal(overlay[:, [0, 63]], np.broadcast_to([[0, 0, 255], [255, 0, 0]], (48, 2, 3)))
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out[:2]] == ["blue", "red"]
    assert float(out[0].split()[1].rstrip("%")) == pytest.approx(75, abs=3)


def test_masks_alone_write_label_values_only(here, capsys):
    assert main(["model.onnx", "clip.mp4", "--masks", "labels", "--every", "5", "--precision", "fp32"]) == 0
    assert new_files(here) == ["labels"]
    stored = sorted((here / "labels").iterdir())
    assert [path.name for path in stored] == ["clip-000000.png", "clip-000005.png", "clip-000010.png"]
    model = rgb_segmenter()
    for path, frame in zip(stored, read_clip(here / "clip.mp4")[::5], strict=True):
        np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), model(frame).labels)
    assert capsys.readouterr().out.endswith("3 frames of clip\nwrote labels\n")


def test_everything_at_once_in_places_with_spaces(here, capsys):
    (here / "mit leerzeichen ö").mkdir()
    place = "mit leerzeichen ö"
    arguments = ["--masks", f"{place}/m", "--snapshot", f"{place}/s.jpg", "--max-frames", "3", "--threads", "1"]
    assert main(["model.onnx", "clip.mp4", f"{place}/o.mkv", *arguments]) == 0
    assert sorted(path.name for path in (here / place).iterdir()) == ["m", "o.mkv", "s.jpg"]
    assert len(read_clip(here / place / "o.mkv")) == len(list((here / place / "m").iterdir())) == 3
    assert capsys.readouterr().out.count("wrote ") == 3


def test_a_folder_of_different_pictures(here, capsys):
    (here / "in").mkdir()
    for index, size_hw in enumerate([(30, 40), (48, 64), (25, 33)]):
        cv2.imwrite(str(here / "in" / f"{index}.png"), picture(index, size_hw=size_hw))
    (here / "in" / "broken.png").write_text("no picture")
    assert main(["model.onnx", "in"]) == 0
    shapes = [cv2.imread(str(here / "in-sfpp" / f"{index}.png")).shape[:2] for index in range(3)]
    assert shapes == [(30, 40), (48, 64), (25, 33)]
    assert "sfpp-run: warning: skipped: in/broken.png" in capsys.readouterr().err
    assert main(["model.onnx", "in", "all.mp4"]) == 0
    assert "size-changed: pictures are 33x25 (width x height) now, written at 40x30" in capsys.readouterr().err
    assert new_files(here) == ["all.mp4", "in", "in-sfpp"]
    assert [frame.shape[:2] for frame in read_clip(here / "all.mp4")] == [(30, 40)] * 3


def test_a_cut_video_is_segmented_as_far_as_it_goes(here, capsys):
    whole = write_clip(here / "clip.mp4", movflags="+faststart").read_bytes()
    (here / "clip.mp4").write_bytes(whole[: len(whole) // 2])
    assert main(["model.onnx", "clip.mp4", "out.mp4"]) == 0
    assert "sfpp-run: warning: clip.mp4: the video breaks off after" in capsys.readouterr().err
    assert len(read_clip(here / "out.mp4")) > 20


def test_a_contract_from_a_file(here, capsys):
    write_model(here / "bare.onnx", with_contract=False)
    (here / "contract.json").write_text(CONTRACT.to_json())
    assert main(["bare.onnx", "photo.png", "out.png"]) == 1
    assert "carries no contract" in capsys.readouterr().err
    assert main(["bare.onnx", "photo.png", "out.png", "--contract", "contract.json"]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["clip.mp4", "--max-frames", "0"], "argument --max-frames: '0' given, expected a whole number from 1"),
        (["clip.mp4", "--every", "-1"], "--every"),
        (["clip.mp4", "--every", "1.5"], "expected a whole number from 1"),
        (["clip.mp4", "--threads", "x"], "expected a whole number from 1"),
        (["clip.mp4", "--backend", "abacus"], "argument --backend: invalid choice: 'abacus'"),
        (["clip.mp4", "--precision", "int3"], "argument --precision: invalid choice: 'int3'"),
        (["clip.mp4", "--alpha", "1.5"], "argument --alpha: '1.5' given, expected a number from 0 to 1"),
        (["clip.mp4", "--alpha", "nan"], "expected a number from 0 to 1"),
        (["clip.mp4", "--alpha", "half"], "expected a number from 0 to 1"),
        ([], "the following arguments are required"),
        (["clip.mp4", "clip.mp4"], "clip.mp4 is given twice; give each source once, and say -o for an output"),
        (["clip.mp4", "-o", "clip.mp4"], "the output clip.mp4 is the input itself"),
        (["clip.mp4", "out.txt"], "cannot tell what to write to out.txt"),
        (["clip.mp4", "out.png"], "holds one picture, but 12 frames will come"),
        (["clip.mp4", "out.mp4", "--snapshot", "shot"], "no name for a picture"),
        ([""], "an empty name was given, expected a file or an address"),
        (["clip.mp4", ""], "an empty name was given"),
        (["clip.mp4", "--masks", ""], "an empty name was given"),
        (["clip.mp4", "--masks", "rtsp://me:secret@host/x"], "--masks takes the name of a file, and rtsp://host/x is"),
        (["clip.mp4", "--token", "0123456789abcdef"], "--token is for the page in the browser; give --view too"),
        (["clip.mp4", "--token-file", "token"], "--token-file is for the page in the browser; give --view too"),
        (["clip.mp4", "--view", "0", "--token-file", "no"], "the token's file no cannot be read (No such file or dir"),
        (["clip.mp4", "--view", "0", "--token-file", "x", "--token", "y"], "not allowed with argument"),
        (["clip.mp4", "--every", "9" * 20], "expected a whole number from 1 to 2147483647"),
        (["clip.mp4", "--max-frames", "9" * 5000], "expected a whole number from 1 to 2147483647"),
    ],
)
def test_wrong_usage_exits_with_2(here, capsys, arguments, words):
    try:
        code = main(["model.onnx", *arguments])
    except SystemExit as end:
        code = end.code
    assert code == 2
    err = capsys.readouterr().err
    assert words in err
    assert "secret" not in err
    assert new_files(here) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model.onnx", "nothing.mp4"], "nothing.mp4 does not exist"),
        (["model.onnx", "model.onnx"], "cannot be opened as a video"),
        (["nothing.onnx", "clip.mp4"], "nothing.onnx is not a file"),
        (["clip.mp4", "clip.mp4"], "no backend opens .mp4"),
        (["model.onnx", "clip.mp4", "model.onnx/out.mp4"], "model.onnx is no folder; give another place"),
        (["model.onnx", "clip.mp4", "--contract", "nothing.json"], "the contract nothing.json cannot be read"),
        (["model.onnx", "x" * 300], "cannot be the name of a file: it is too long"),
        (["model.onnx", "clip.mp4", "x" * 300 + ".mp4"], "cannot be the name of a file: it is too long"),
    ],
)
def test_a_failure_is_one_line_and_leaves_nothing(here, capsys, arguments, words):
    assert main(arguments) == (2 if "too long" in words else 1)
    errors = [line for line in capsys.readouterr().err.splitlines() if ": error: " in line]
    assert len(errors) == 1
    assert errors[0].startswith("sfpp-run: error: ")
    assert words in errors[0]
    assert new_files(here) == []


def test_missing_folders_are_made_and_taken_away_with_a_run_that_fails(here, capsys):
    words = ["new/er/out.mp4", "--json", "logs/x.jsonl", "--masks", "labels/of/it", "--snapshot", "shot/a.png"]
    (here / "bad.mp4").write_bytes((here / "clip.mp4").read_bytes()[:3000])
    assert main(["model.onnx", "bad.mp4", *words]) == 1
    (here / "bad.mp4").unlink()
    assert new_files(here) == []
    assert main(["model.onnx", "clip.mp4", *words]) == 0
    assert new_files(here) == ["labels", "logs", "new", "shot"]
    assert len(read_clip(here / "new/er/out.mp4")) == 12
    assert len((here / "logs/x.jsonl").read_text().splitlines()) == 12


def test_a_terminal_that_is_closed_leaves_a_playable_video(here):
    """As where a connection by SSH is lost: there is a signal, and what is written to the terminal fails."""
    write_clip(here / "clip.mp4", frames=400)
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    program = SLOW_COMMAND.replace('print("frame", file=sys.stderr, flush=True)', "pass")
    process = subprocess.Popen(
        [sys.executable, "-c", program, "model.onnx", "clip.mp4", "out.mp4"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=hangs_up,
    )
    os.close(theirs)
    said = b""
    while not re.search(rb"([5-9]\d|\d{3})/400", said):
        said += os.read(ours, 4096)
    os.close(ours)
    process.send_signal(signal.SIGHUP)
    process.wait()
    assert 50 - ON_THEIR_WAY <= len(read_clip(here / "out.mp4")) < 400
    assert new_files(here) == ["out.mp4"]


def test_what_nohup_starts_goes_on(here):
    process = start(
        "model.onnx", "clip.mp4", "out.mp4", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    )
    assert process.stderr.readline()
    process.send_signal(signal.SIGHUP)
    process.communicate()
    assert (process.returncode, len(read_clip(here / "out.mp4"))) == (0, 12)


class Terminal:
    """What tqdm takes for a screen."""

    encoding = "utf-8"

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return True


def test_progress_is_shown_on_a_terminal_for_more_than_one_frame(here, monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    main(["model.onnx", "photo.png", "a.png"])
    assert "frame/s" not in terminal.text
    main(["model.onnx", "clip.mp4", "b.mp4"])
    assert "12/12" in terminal.text
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("sent", "code"), [(["SIGINT"], 130), (["SIGTERM"], 143), (["SIGHUP"], 129), (["SIGINT"] * 3, 130)]
)
def test_ctrl_c_leaves_a_playable_video(here, sent, code):
    write_clip(here / "clip.mp4", frames=400)
    process = start("model.onnx", "clip.mp4", "out.mp4", "--snapshot", "s.png", "--alpha", "0", "--no-legend")
    before = 0
    while before < 100:
        line = process.stderr.readline()
        assert line, process.stdout.read()  # the command ended by itself
        before += line == "frame\n"
    for name in sent:
        process.send_signal(getattr(signal, name))
    out, err = process.communicate()
    started = before + err.splitlines().count("frame")
    assert process.returncode == code, err
    assert "Traceback" not in err
    decoded = read_clip(here / "out.mp4")
    # Frames that are still on their way through the stages are dropped; those that came out are all there.
    assert 100 - ON_THEIR_WAY <= len(decoded) <= started < 200
    if len(sent) == 1:
        assert f"{len(decoded)} frames of clip: stopped early" in out
    assert [index_of(image) for image in decoded[-30:]] == [index % 60 for index in range(400)][: len(decoded)][-30:]
    assert new_files(here) == ["out.mp4", "s.png"]


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_closed_standard_streams_are_no_error(here, closed):
    program = "import sys\nfrom sfpp.runtime.cli.run import main\nsys.exit(main(sys.argv[1:]))"
    closing = (
        f"import os, sys\nfor n in {closed}: os.close(n)\nos.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    arguments = ["-c", program, "model.onnx", "clip.mp4", "out.mp4", "--backend", "onnxruntime"]
    done = subprocess.run([sys.executable, "-c", closing, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "runs in" not in done.stdout
    assert len(read_clip(here / "out.mp4")) == 12


def test_a_full_disk_behind_standard_output_is_one_line(here):
    program = "import sys\nfrom sfpp.runtime.cli.run import main\nsys.exit(main(sys.argv[1:]))"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program, "model.onnx", "photo.png", "--backend", "onnxruntime"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "sfpp-run: error: standard output cannot be written: the disk is full"
    )


def test_names_that_standard_output_cannot_show_are_no_error(here):
    (here / "photo.png").rename(here / "ü.png")
    program = "import sys\nfrom sfpp.runtime.cli.run import main\nsys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, "model.onnx", "ü.png", "--backend", "onnxruntime"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("wrote \\xfc-sfpp.png\n")
    (here / "ü.png").rename(here / "photo.png")


def test_a_reader_that_goes_away_is_no_error(here):
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_COMMAND, "model.onnx", "photo.png", "out.png"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )
    os.close(writing)
    err = process.communicate()[1]
    assert process.returncode == 141
    assert "Traceback" not in err
    assert (here / "out.png").exists()


@pytest.mark.parametrize(
    ("limit", "arguments"),
    [
        (20_000, ["clip.mp4", "out.mp4"]),
        (20_000, ["clip.mp4", "out.mkv"]),
        (0, ["photo.png", "out.png"]),
        (0, ["clip.mp4", "--masks", "masks"]),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(here, limit, arguments):
    write_clip(here / "clip.mp4", frames=120, size_hw=(120, 160))

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    facts = Path("/proc/cpuinfo")
    if facts.exists() and not subprocess.check_output(["cat", facts], preexec_fn=limited):
        pytest.skip("an emulator writes /proc/cpuinfo to a file, and ONNX Runtime does not load where it is empty")
    process = start("model.onnx", *arguments, "--alpha", "0", preexec_fn=limited)
    err = process.communicate()[1]
    lines = [line for line in err.splitlines() if line != "frame"]
    assert process.returncode == 1, err
    assert len(lines) == 2  # the backend's line, and this:
    assert lines[1].startswith("sfpp-run: error: cannot write ")
    assert "the file would exceed the allowed file size; nothing was left behind" in lines[1]
    assert new_files(here) == []


@pytest.mark.parametrize(
    "order",
    [
        ["MODEL", "INPUT", "OUTPUT", "--threads", "1"],
        ["--threads", "1", "MODEL", "INPUT", "OUTPUT"],
        ["MODEL", "--threads", "1", "INPUT", "OUTPUT"],
        ["MODEL", "INPUT", "--threads", "1", "OUTPUT"],
    ],
)
def test_options_may_stand_anywhere(order):
    arguments = parsed(order)
    assert (arguments.model, arguments.sources, arguments.output) == ("MODEL", ["INPUT"], "OUTPUT")
    assert arguments.threads == 1


@pytest.fixture
def still(here, monkeypatch):
    """A folder of equal pictures, and a model that takes longer than carrying its labels."""
    infer = Segmenter.infer

    def slow(self, prepared):
        time.sleep(0.05)
        return infer(self, prepared)

    monkeypatch.setattr(Segmenter, "infer", slow)
    (here / "still").mkdir()
    for index in range(24):
        write_image(here / f"still/{index:02d}.png", picture(0, size_hw=(96, 128)))
    return here


def said(capsys, *arguments):
    assert main(["model.onnx", "--backend", "onnxruntime", *arguments, "--json", "lines.jsonl"]) == 0
    return capsys.readouterr().out


def test_a_run_of_a_file_ends_with_what_key_frames_would_bring(still, capsys):
    out = said(capsys, "still")
    assert re.search(
        r"^24 frames of still\n--key-every 4 would run about \d\.\dx as fast here \(.*\), and .*%$", out, re.M
    )
    assert "label 100.0% of the pixels as the network does" in out


@pytest.mark.parametrize("options", [["-q"], ["--key-every", "2"], ["--smooth"], ["--max-frames", "19"], ["--still"]])
def test_no_such_line_comes_where_it_would_not_help(still, capsys, options):
    assert "--key-every" not in said(capsys, "still", *options)
