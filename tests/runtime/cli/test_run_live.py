"""sfpp-run on live sources, on several at once, and with outputs of every kind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest

from sfpp.runtime.cli.run import main
from sfpp.runtime.video.sinks.records import RecordLines
from tests.runtime.cli.test_run import write_model
from tests.runtime.video.clips import read_clip, write_clip
from tests.runtime.video.sinks.receiving import free_port

SCENE = "test://?width=64&height=48&fps=50"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a model in it."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "model.onnx")
    return tmp_path


def run(capsys, *arguments):
    code = main(["model.onnx", "--backend", "onnxruntime", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_live_source_becomes_a_video_and_lines_of_json(here, capsys):
    code, out, err = run(capsys, f"{SCENE}&frames=30", "-o", "scene.mp4", "--json", "scene.jsonl")
    assert code == 0
    assert "policy follow: frames are shown at once, with the newest labels carried to them" in err
    assert "test: ended: no more frames" in err
    assert "age from a frame's coming to its answer" in out
    assert out.endswith("wrote scene.mp4\nwrote scene.jsonl\n")
    records = [json.loads(line) for line in (here / "scene.jsonl").read_text().splitlines()]
    indexes = [record["frame"] for record in records]
    assert indexes == sorted(set(indexes))
    for record in records:
        assert sum(record["shares"].values()) == pytest.approx(1, abs=1e-3)
        assert record["age_ms"] > 0
        assert set(record["latency_ms"]) == {"motion", "labels"}
    # Of the frames that were answered a video drops some by itself on a busy machine, and the lines none.
    answered = int(re.search(r"^(\d+) frames? of test, \d+ dropped", out, re.MULTILINE)[1])
    assert 1 <= len(read_clip(here / "scene.mp4")) <= answered <= 30
    assert len(records) == answered
    assert run(capsys, f"{SCENE}&frames=3", "--json", "scene.jsonl", "--policy", "every-frame")[0] == 0
    assert len((here / "scene.jsonl").read_text().splitlines()) == answered + 3


def test_a_slow_disk_loses_no_line_of_a_live_source(here, capsys, monkeypatch):
    write = RecordLines.write_record

    def slow(self, record):
        time.sleep(0.02)
        write(self, record)

    monkeypatch.setattr(RecordLines, "write_record", slow)
    code, out, _ = run(capsys, f"{SCENE}&frames=60", "--json", "scene.jsonl")
    answered = int(re.search(r"^(\d+) frames? of test, \d+ dropped", out, re.MULTILINE)[1])
    assert (code, len((here / "scene.jsonl").read_text().splitlines())) == (0, answered)


def test_nothing_is_dropped_where_every_frame_is_wanted(here, capfd):
    code, out, _ = run(capfd, f"{SCENE}&frames=25", "--policy", "every-frame", "--json", "-", "-o", "masks/")
    assert code == 0
    assert [json.loads(line)["frame"] for line in out.splitlines()] == list(range(25))
    assert len(list((here / "masks").glob("*.png"))) == 25


def test_several_sources_need_names_of_their_own(here, capsys):
    sources = [f"{SCENE}&frames=6&seed={seed}" for seed in (1, 2)]
    code, _, err = run(capsys, *sources, "-o", "out.mp4")
    assert code == 2
    assert "out.mp4 cannot hold 2 sources; put {source} into the name, such as out-{source}.mp4" in err
    code, out, _ = run(capsys, *sources, "-o", "out-{source}.mp4", "--json", "all.jsonl", "--policy", "every-frame")
    assert code == 0
    videos = sorted(path.name for path in here.glob("out-*.mp4"))
    assert videos == ["out-test-1.mp4", "out-test-2.mp4"]
    for video in videos:
        assert f"wrote {video}" in out
        assert len(read_clip(here / video)) == 6
    lines = (here / "all.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["source"] for line in lines) == ["test-1"] * 6 + ["test-2"] * 6


def test_one_camera_that_is_down_ends_no_other(here, capsys):
    sources = [f"{SCENE}&frames=6", "rtsp://127.0.0.1:9/street"]
    code, out, err = run(capsys, *sources, "-o", "all/", "--json", "all.jsonl", "--policy", "every-frame")
    assert code == 1
    assert "error: rtsp://127.0.0.1:9/street cannot be opened: connection refused; " in err
    assert "; ?wait=1 waits until it is there; the others go on\n" in err
    assert "rtsp-127-0-0-1-9-street: gave-up: it could not be opened\n" in err
    assert "\n6 frames of test\n" in out
    assert out.endswith("\nwrote all/test-sfpp.mp4\nwrote all.jsonl\n")
    # As for two sources, and not the pictures of one.
    assert [path.name for path in (here / "all").iterdir()] == ["test-sfpp.mp4"]
    assert len(read_clip(here / "all" / "test-sfpp.mp4")) == 6
    assert len((here / "all.jsonl").read_text().splitlines()) == 6


def test_where_all_cameras_are_down_nothing_runs(here, capsys):
    code, out, err = run(capsys, "rtsp://127.0.0.1:9/a", "rtsp://127.0.0.1:9/b", "-o", "all/")
    assert (code, out) == (1, "")
    assert [line.split(" cannot")[0] for line in err.splitlines()] == [
        f"sfpp-run: error: rtsp://127.0.0.1:9/{name}" for name in "ab"
    ]
    assert "the others go on" not in err
    assert not (here / "all").exists()


def test_one_file_with_one_output_is_no_live_matter(here, capsys):
    code, out, _ = run(capsys, "demo", "-o", "half.mp4", "--every", "2", "--max-frames", "5")
    assert code == 0
    assert out.endswith("5 frames of highway\nwrote half.mp4\n")
    assert len(read_clip(here / "half.mp4")) == 5


def test_an_input_is_not_overwritten(here, capsys):
    write_clip(here / "clip.mp4", frames=5)
    before = (here / "clip.mp4").read_bytes()
    code, _, err = run(capsys, "clip.mp4", "--smooth", "0.3", "-o", "./clip.mp4")
    assert (code, "the output ./clip.mp4 is the input itself" in err) == (2, True)
    code, _, err = run(capsys, "demo", "clip.mp4", "-o", "{source}.mp4")
    assert (code, "the output clip.mp4 is the input itself" in err) == (2, True)
    assert (here / "clip.mp4").read_bytes() == before


def test_each_source_may_have_its_own_lines(here, capsys):
    sources = [f"{SCENE}&frames=4&seed={seed}" for seed in (1, 2)]
    code, out, _ = run(capsys, *sources, "-o", "{source}/", "--json", "{source}.jsonl", "--policy", "every-frame")
    assert code == 0
    for name in ("test-1", "test-2"):
        told = [json.loads(line)["source"] for line in (here / f"{name}.jsonl").read_text().splitlines()]
        assert told == [name] * 4
        assert len(list((here / name).glob("*.png"))) == 4
    assert out.endswith("wrote test-1/\nwrote test-1.jsonl\nwrote test-2/\nwrote test-2.jsonl\n")


def test_key_frames_of_a_file(here, capsys):
    code, _, _ = run(capsys, "demo", "--key-every", "4", "--json", "demo.jsonl", "--max-frames", "10")
    assert code == 0
    records = [json.loads(line) for line in (here / "demo.jsonl").read_text().splitlines()]
    assert [record["frame"] for record in records] == list(range(10))
    assert [record.get("carried", {}).get("from") for record in records] == [None, 0, 0, 0, None, 4, 4, 4, None, None]
    assert [set(record["latency_ms"]) for record in records[:2]] == [
        {"motion", "prepare", "infer", "labels"},
        {"motion", "labels"},
    ]


def test_files_are_smoothed_like_cameras(here, capsys):
    code, out, err = run(capsys, "demo", "--smooth", "0.3", "-o", "smooth.mp4", "--max-frames", "5")
    assert code == 0
    assert "policy" not in err  # files lose no frame
    assert "5 frames of highway\n" in out
    assert len(read_clip(here / "smooth.mp4")) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--json", "model.onnx"], "the output model.onnx is the input itself"),
        (["test://", "--json", "-", "-o", "raw://-"], "two outputs go to standard output"),
        (["test://", "-o", "a.mp4", "-o", "./a.mp4"], "two outputs go to ./a.mp4"),
        (
            ["test://?seed=1", "test://?seed=2", "-o", "{source}/", "--masks", "m/"],
            "m/ cannot hold 2 sources; put {source} into the name",
        ),
        (
            ["test://?seed=1", "test://?seed=2", "-o", "rtsp://me:secret@host/out"],
            "put {source} into the name, such as rtsp://host/out-{source}\n",
        ),
        (["test://", "--smooth", "1"], "expected a number, 0 (none) to below 1"),
        (["test://?with=3"], "with"),
        (["tests://"], "tests"),
        (["nothing.mp4"], "nothing.mp4 does not exist"),
        (["test://", "-o", "out.xyz"], "cannot tell what to write to out.xyz"),
    ],
)
def test_wrong_usage_is_named(here, capsys, arguments, message):
    code, _, err = run(capsys, *arguments)
    assert code in (1, 2)
    assert message in err
    assert [path.name for path in here.iterdir()] == ["model.onnx"]


def test_nothing_but_frames_goes_to_standard_output(here, capfd):
    write_clip(here / "clip.mp4", frames=5)
    code, out, err = run(capfd, "clip.mp4", "-")
    assert code == 0
    assert [json.loads(line)["frame"] for line in out.splitlines()] == list(range(5))
    assert "5 frames of clip" in err
    code, out, _ = run(capfd, "clip.mp4", "raw://-?format=gray8")
    assert code == 0
    assert len(out.encode("utf-8", "surrogateescape")) % 5 == 0
    assert "frames of clip" not in out


def test_where_no_frame_came_nothing_is_called_written(here):
    program = "import sys; from sfpp.runtime.cli.run import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["model.onnx", "--backend", "onnxruntime", f"http://127.0.0.1:{free_port()}/?wait=1", "-o", "scene.mp4"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert any("lost" in line for line in process.stderr)
    process.terminate()
    out, _ = process.communicate()
    assert (process.returncode, out) == (143, "no frame came\n")
    assert not (here / "scene.mp4").exists()


def test_what_could_not_be_written_is_not_called_written(here, capsys):
    code, out, err = run(capsys, f"{SCENE}&frames=20", "-o", "raw:///dev/full", "-o", "scene.mp4")
    assert code == 1
    assert "raw:///dev/full: sink-failed: cannot write full: No space left on device" in err
    assert "warning: not all was written to raw:///dev/full" in err
    assert out.endswith("\nwrote scene.mp4\n")
    assert "wrote raw" not in out


def test_a_receiver_that_never_answered_was_not_written_to(here, capsys):
    code, out, err = run(capsys, f"{SCENE}&frames=3", "-o", "rtsp://me:secret@127.0.0.1:1/x", "--json", "scene.jsonl")
    assert code == 1
    assert "warning: nothing was sent to rtsp://127.0.0.1:1/x, which was never connected" in err
    assert out.endswith("\nwrote scene.jsonl\n")
    assert "wrote rtsp" not in out
    assert "secret" not in out + err


def test_two_sources_need_no_output_if_something_else_is_made_of_them(here, capsys):
    sources = [f"{SCENE}&frames=4&seed={seed}" for seed in (1, 2, 3)]
    for count in (2, 3):
        code, out, _ = run(capsys, *sources[:count], "--json", f"{count}.jsonl", "--policy", "every-frame")
        assert (code, out.splitlines()[-1]) == (0, f"wrote {count}.jsonl")
        told = [json.loads(line)["source"] for line in (here / f"{count}.jsonl").read_text().splitlines()]
        assert sorted(told) == [f"test-{seed}" for seed in range(1, count + 1) for _ in range(4)]


def test_one_more_camera_is_not_written_to(here, capsys):
    for before, which in ((["rtsp://front/1"], "a second"), (["rtsp://front/1", "0"], "another")):
        with pytest.raises(SystemExit) as ended:
            main(["model.onnx", *before, "rtsp://me:secret@back/2"])
        assert ended.value.code == 2
        told = capsys.readouterr().err
        assert f"rtsp://back/2 may be {which} source or the output; say -o rtsp://back/2 for an output" in told
        assert "secret" not in told


def test_ctrl_c_completes_what_was_written(here):
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from sfpp.runtime.cli.run import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["model.onnx", "--backend", "onnxruntime", SCENE, "-o", "out.mp4", "--json", "out.jsonl"]
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)
    while not (here / "out.jsonl").is_file() or (here / "out.jsonl").read_text().count("\n") < 20:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGINT
    assert "wrote out.mp4" in out
    assert len(read_clip(here / "out.mp4")) > 0  # how many, depends on how fast this machine encodes
    assert all(json.loads(line) for line in (here / "out.jsonl").read_text().splitlines())


def test_the_page_in_the_browser_shows_what_runs(here):
    pytest.importorskip("aiohttp")
    program = "import sys; from sfpp.runtime.cli.run import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["model.onnx", "--backend", "onnxruntime", SCENE, "--view", "0"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    try:
        url = next(line for line in process.stderr if "open http://" in line).split("open ")[1].split()[0]
        for _ in range(100):
            with urllib.request.urlopen(f"{url}metrics") as answer:
                text = answer.read().decode()
            if 'sfpp_frames_total{source="test"}' in text:
                break
            time.sleep(0.1)
        assert 'sfpp_frames_total{source="test"}' in text
        with urllib.request.urlopen(url) as answer:
            assert "text/html" in answer.headers["content-type"]
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert not np.any([path.suffix == ".mp4" for path in here.iterdir()])


@pytest.mark.parametrize("by", ["option", "file", "variable", "nothing"])
def test_a_token_that_was_handed_over_in_secret_is_not_printed(here, capsys, caplog, monkeypatch, by):
    pytest.importorskip("aiohttp")
    token = "0123456789-abcdefghij"
    (here / "token").write_text(token)
    (here / "token").chmod(0o644)
    more = {"option": ["--token", token], "file": ["--token-file", "token"]}.get(by, [])
    if by == "variable":
        monkeypatch.setenv("SFPP_TOKEN", token)
    assert main(["model.onnx", "--backend", "onnxruntime", "test://?frames=2", "--view", "0", *more]) == 0
    err = capsys.readouterr().err
    assert (token in err) == (by == "option")
    assert ("other users of this machine see --token in the list of processes" in err) == (by == "option")
    assert ("other users of this machine may read the token" in caplog.text) == (by == "file" and os.name == "posix")
    where = {"option": f"?token={token} in", "file": "with the token in token for TOKEN"}
    assert {**where, "variable": "with the token in SFPP_TOKEN for TOKEN", "nothing": "/ in a browser"}[by] in err
