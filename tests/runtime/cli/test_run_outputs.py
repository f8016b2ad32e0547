"""All outputs of `sfpp-run` go together: every pair of them, on a file and on a live source, with all that is said."""

import asyncio
import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sfpp.runtime.cli import running
from sfpp.runtime.cli.run import main
from tests.runtime.cli.test_run import Terminal, write_model
from tests.runtime.video.clips import read_clip, write_clip

FRAMES = 6
SOURCES = {
    "file": ["clip.mp4"],
    "live": [f"test://?width=64&height=48&fps=200&frames={FRAMES}", "--policy", "every-frame"],
}


def frames_of_json():
    return [json.loads(line)["frame"] for line in Path("x.jsonl").read_text().splitlines()]


# Options of each output, and what there must be of so many frames.
OUTPUTS = {
    "video": (["-o", "out.mp4"], lambda count: len(read_clip(Path("out.mp4"))) == count),
    "folder": (["-o", "frames/"], lambda count: len(list(Path("frames").glob("*.png"))) == count),
    "raw": (["-o", "raw://out.raw"], lambda count: Path("out.raw").stat().st_size == count * 64 * 48 * 3),
    "json": (["--json", "x.jsonl"], lambda count: frames_of_json() == list(range(0, FRAMES, FRAMES // count))),
    "masks": (["--masks", "m/"], lambda count: len(list(Path("m").glob("*.png"))) == count),
    "snapshot": (["--snapshot", "s.png"], lambda count: Path("s.png").is_file()),
    "page": (["--view", "0"], lambda count: True),
}
STAGES = {
    "video": "encode",
    "folder": "encode",
    "raw": "encode",
    "json": "json",
    "masks": "masks",
    "snapshot": "snapshot",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a model and a clip in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SFPP_CACHE", str(tmp_path.with_name(f"{tmp_path.name}-cache")))
    write_model(tmp_path / "model.onnx")
    write_clip(tmp_path / "clip.mp4", frames=FRAMES)
    return tmp_path


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("pair", list(itertools.combinations(OUTPUTS, 2)), ids="-".join)
@pytest.mark.usefixtures("here")
def test_every_pair_of_outputs(capsys, pair, kind, every):
    if "page" in pair:
        pytest.importorskip("aiohttp")
    options = [option for name in pair for option in OUTPUTS[name][0]]
    code = main(["model.onnx", "--backend", "onnxruntime", *SOURCES[kind], *options, "--every", str(every)])
    told = capsys.readouterr()
    assert code == 0, told.err
    count = FRAMES // every
    for name in pair:
        assert OUTPUTS[name][1](count), name
    lines = told.out.splitlines()
    stages = {line.split()[0] for line in lines}
    assert {"stage", "infer", *(STAGES[name] for name in pair if name in STAGES)} <= stages
    assert ("draw" in stages) == bool({"video", "folder", "raw", "snapshot"} & set(pair))
    assert any(line.startswith(f"{count} frames of ") for line in lines)
    assert ("open http://" in told.err) == ("page" in pair)


@pytest.mark.usefixtures("here")
def test_the_whole_of_it_with_a_progress_bar(monkeypatch, capsys):
    pytest.importorskip("aiohttp")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    words = ["clip.mp4", "--json", "x.jsonl", "--every", "2", "-o", "out.mp4", "--view", "0"]
    assert main(["model.onnx", "--backend", "onnxruntime", *words]) == 0
    monkeypatch.undo()
    assert f"{FRAMES // 2}/{FRAMES // 2}" in terminal.text
    assert "open http://" in terminal.text
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[1:8]] == [
        "decode", "prepare", "infer", "labels", "draw", "encode", "json"
    ]  # fmt: skip
    assert out.endswith("3 frames of clip\nwrote out.mp4\nwrote x.jsonl\n")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "out.txt"], "cannot tell what to write to out.txt"),
        (["-o", "out.png"], "holds one picture, but 6 frames will come"),
        (["-o", "clip.mp4/out.mp4"], "clip.mp4 is no folder"),
        (["--json", "clip.mp4/x.jsonl"], "clip.mp4 is no folder"),
        (["--json", "model.onnx"], "is the input itself"),
        (["--json", "report.json"], "report.json exists, and lines can only be added to lines of --json"),
        (["--snapshot", "shot"], "no name for a picture"),
        (["--threshold", "0.5"], "--threshold is for pose models"),
        (["--smooth", "1"], "expected a number, 0 (none) to below 1"),
        (["--policy", "follow"], "the policy follow is for cameras and streams, and clip is not live"),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_is_refused_is_refused_before_the_model_is_opened(capsys, monkeypatch, options, words):
    Path("report.json").write_text('{"mIoU": 0.5}\n')
    monkeypatch.setattr(running, "_loaded", lambda arguments: pytest.fail("the model was opened"))
    assert main(["model.onnx", "clip.mp4", *options]) in (1, 2)
    assert words in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_the_pages_stop_button_ends_the_run():
    pytest.importorskip("aiohttp")
    from tests.runtime.viewer import looking

    program = "import sys; from sfpp.runtime.cli.run import main; sys.exit(main(sys.argv[1:]))"
    words = ["test://?width=64&height=48", "--view", "0", "-o", "out.mp4"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, "model.onnx", "--backend", "onnxruntime", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    url = next(line for line in process.stderr if "open http://" in line).split("open ")[1].split()[0]

    async def press_stop():
        async with looking.opened(url) as page:
            assert page.hello["canStop"] is True
            await page.picture()
            await page.send(type="stop")

    try:
        asyncio.run(press_stop())
        out, err = process.communicate()
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.returncode == 0, err
    assert ": stopped early, and what is written is complete" in out
    assert len(read_clip(Path("out.mp4"))) >= 1
