"""Which words of `sfpp-run` are sources, where the outputs of several go, and that nothing else is ever overwritten."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from sfpp.runtime.cli import running
from sfpp.runtime.cli.run import main, parsed
from sfpp.runtime.contract import METADATA_KEY
from sfpp.runtime.segmentation import Segmenter
from sfpp.runtime.video.sinks.records import RecordLines
from tests.runtime.cli.test_run import SLOW_COMMAND, write_model
from tests.runtime.video.clips import CONTRACT, index_of, picture, read_clip, write_clip

SCENE = "test://?width=64&height=48&fps=50"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a model and two clips in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SFPP_CACHE", str(tmp_path.with_name(f"{tmp_path.name}-cache")))
    write_model(tmp_path / "model.onnx")
    write_clip(tmp_path / "a.mp4", frames=7)
    write_clip(tmp_path / "b.mp4", frames=5)
    return tmp_path


@pytest.fixture
def unopened(monkeypatch):
    """A model that must not be opened: what is refused is refused before that."""
    monkeypatch.setattr(running, "_loaded", lambda arguments: pytest.fail("the model was opened"))


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(capsys, *arguments):
    try:
        code = main(["model.onnx", "--backend", "onnxruntime", *map(str, arguments)])
    except SystemExit as end:
        code = end.code
    told = capsys.readouterr()
    return code, told.out, told.err


def indices(path):
    return [index_of(image) for image in read_clip(path)]


PLAIN = ("--alpha", "0", "--no-legend")


def test_several_files_are_several_sources_and_none_is_overwritten(here, capsys):
    """What a shell makes of *.mp4, where two match."""
    before = contents(here)
    code, out, err = run(capsys, "a.mp4", "b.mp4", *PLAIN)
    assert code == 0
    after = contents(here)
    assert {name: after[name] for name in before} == before
    assert sorted(after.keys() - before.keys()) == ["a-sfpp.mp4", "b-sfpp.mp4"]
    assert (indices("a-sfpp.mp4"), indices("b-sfpp.mp4")) == (list(range(7)), list(range(5)))
    assert out.splitlines() == [
        "7 frames of a",
        "wrote a-sfpp.mp4",
        "5 frames of b",
        "wrote b-sfpp.mp4",
        "self-test: not carried",
        "2 of 2 sources are done",
    ]
    assert "b.mp4 exists, so it is one more source; to write over it, say -o b.mp4" in err


def test_everything_that_can_be_read_may_stand_beside_each_other(here, capsys):
    (here / "in").mkdir()
    for name in ("in/0.png", "in/1.png", "photo.png", "g1.jpg", "g2.jpg"):
        cv2.imwrite(name, picture(0))
    before = contents(here)
    code, out, _ = run(capsys, "in", "a.mp4", "photo.png", "g*.jpg", "[b]*.mp4", "demo", "--max-frames", "3")
    assert code == 0
    after = contents(here)
    assert {name: after[name] for name in before} == before
    folder = f"{here.name}-sfpp"  # a pattern's pictures are called after its folder
    made = ["a-sfpp.mp4", "b-sfpp.mp4", f"{folder}/g1.png", f"{folder}/g2.png", "highway-sfpp.mp4", "in-sfpp/0.png"]
    assert sorted(after.keys() - before.keys()) == sorted([*made, "in-sfpp/1.png", "photo-sfpp.png"])
    assert out.splitlines()[-1] == "6 of 6 sources are done"
    assert len(read_clip(here / "highway-sfpp.mp4")) == 3


@pytest.mark.parametrize(
    ("words", "sources", "output"),
    [
        (["a.mp4"], 1, None),
        (["new.mp4"], 1, None),
        (["a.mp4", "new.mp4"], 1, "new.mp4"),
        (["a.mp4", "new/"], 1, "new/"),
        (["a.mp4", "new"], 1, "new"),
        (["a.mp4", "no/folder/new.mp4"], 1, "no/folder/new.mp4"),
        (["a.mp4", "-"], 1, "-"),
        (["a.mp4", "raw://-"], 1, "raw://-"),
        (["a.mp4", "window://"], 1, "window://"),
        (["a.mp4", "b.mp4"], 2, None),
        (["a.mp4", "./b.mp4"], 2, None),
        (["a.mp4", "folder"], 2, None),
        (["a.mp4", "folder/"], 2, None),
        (["a.mp4", "link.mp4"], 2, None),
        (["a.mp4", "nothing-yet.mp4"], 1, "nothing-yet.mp4"),
        (["a.mp4", "0"], 2, None),
        (["a.mp4", "demo"], 2, None),
        (["a.mp4", "*.mov"], 2, None),
        (["a.mp4", "http://host/x.mp4"], 2, None),
        (["a.mp4", "test://"], 2, None),
        (["a.mp4", "raw://b.mp4"], 2, None),
        (["a.mp4", "raw://b.mp4?width=8&height=8&format=bgr24"], 2, None),
        (["a.mp4", "b.mp4", "new/"], 2, "new/"),
        (["a.mp4", "b.mp4", "folder"], 3, None),
        (["a.mp4", "n" * 300], 1, "n" * 300),
    ],
)
def test_only_a_last_word_that_is_nothing_yet_is_an_output(here, words, sources, output):
    (here / "folder").mkdir()
    (here / "link.mp4").symlink_to("b.mp4")
    (here / "nothing-yet.mp4").symlink_to("nothing.mp4")
    arguments = parsed(["model.onnx", *words])
    assert (arguments.sources, arguments.output) == (words[:sources], output)
    for more in (["-o", "x.mp4"], ["--view", "8080"]):
        arguments = parsed(["model.onnx", *words, *more])
        assert (arguments.sources, arguments.output) == (words, None)


def test_a_second_run_of_the_same_line_does_not_overwrite(here, capsys):
    assert run(capsys, "a.mp4", "out.mp4")[0] == 0
    before = contents(here)
    code, _, err = run(capsys, "a.mp4", "out.mp4")
    assert code == 0
    assert "out.mp4 exists, so it is one more source; to write over it, say -o out.mp4" in err
    assert {name: contents(here)[name] for name in before} == before
    assert run(capsys, "a.mp4", "-o", "out.mp4", "--max-frames", "2")[0] == 0
    assert len(read_clip(here / "out.mp4")) == 2


def test_a_name_that_nobody_gave_is_never_overwritten(here, capsys):
    (here / "in").mkdir()
    cv2.imwrite("in/0.png", picture(0))
    (here / "a-sfpp.mp4").write_text("mine")
    (here / "a-sfpp-2.mp4").symlink_to("nowhere")
    (here / "in-sfpp").mkdir()
    (here / "in-sfpp" / "0.png").write_text("mine")
    code, out, err = run(capsys, "a.mp4")
    assert (code, out.splitlines()[-1]) == (0, "wrote a-sfpp-3.mp4")
    assert "a-sfpp.mp4 exists, so a-sfpp-3.mp4 is written; to write over it, say -o a-sfpp.mp4" in err
    code, out, err = run(capsys, "in")
    assert (code, out.splitlines()[-1]) == (0, "wrote in-sfpp-2/")
    assert (here / "a-sfpp.mp4").read_text() == (here / "in-sfpp" / "0.png").read_text() == "mine"


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize("words", [("-o", "out.mp4"), ("out.mp4",), ("-o", "raw://out.raw"), ("-o", "out.png")])
def test_one_file_holds_one_source(here, capsys, words):
    before = contents(here)
    code, _, err = run(capsys, "a.mp4", "b.mp4", *words)
    assert code == 2
    assert f"{words[-1]} cannot hold 2 sources" in err
    assert "put {source} into the name, such as " in err
    assert ("or name a folder" in err) == ("raw" not in words[-1])
    assert ("is the output since it does not exist" in err) == (len(words) == 1)
    assert contents(here) == before


@pytest.mark.parametrize("words", [("-o", "out/"), ("out",), ("-o", "new/out")])
def test_a_folder_has_an_output_for_each_of_several_sources(here, capsys, words):
    (here / "in").mkdir()
    cv2.imwrite("in/0.png", picture(0))
    for _ in range(2):
        code, out, _ = run(capsys, "a.mp4", "b.mp4", "in", *words, *PLAIN)
        assert code == 0
        words = ("-o", words[-1])
    out = here / words[-1]
    made = sorted(contents(out))
    assert made == sorted(
        f"{name}{number}{end}"
        for name, end in (("a-sfpp", ".mp4"), ("b-sfpp", ".mp4"), ("in-sfpp", "/0.png"))
        for number in ("", "-2")
    )
    assert indices(out / "a-sfpp.mp4") == indices(out / "a-sfpp-2.mp4") == list(range(7))


def test_a_folder_in_which_the_sources_lie_is_as_good_as_any(here, capsys):
    before = contents(here)
    assert run(capsys, "a.mp4", "b.mp4", "-o", ".")[0] == 0
    after = contents(here)
    assert {name: after[name] for name in before} == before
    assert sorted(after.keys() - before.keys()) == ["a-sfpp.mp4", "b-sfpp.mp4"]


@pytest.mark.usefixtures("unopened")
def test_a_folder_that_stays_empty_is_not_made(here, capsys):
    code, _, err = run(capsys, "a.mp4", "b.mp4", "-o", "out/", "--snapshot", "s.png")
    assert (code, "s.png cannot hold 2 sources" in err) == (2, True)
    assert not (here / "out").exists()


def test_each_source_has_its_name_in_the_output(here, capsys):
    words = ["-o", "{source}.mkv", "--masks", "m-{source}", "--snapshot", "{source}.jpg", "--every", "2"]
    assert run(capsys, "a.mp4", "b.mp4", *words, *PLAIN)[0] == 0
    assert (indices("a.mkv"), indices("b.mkv")) == ([0, 2, 4, 6], [0, 2, 4])
    assert (len(list((here / "m-a").iterdir())), len(list((here / "m-b").iterdir()))) == (4, 3)
    assert (here / "a.jpg").is_file()
    assert (here / "b.jpg").is_file()


def test_names_are_kept_apart(here, capsys):
    for name in ("x/same.mp4", "y/same.mp4", "y/SAME.mp4", "y/same.mkv"):
        (here / name).parent.mkdir(exist_ok=True)
        write_clip(here / name, frames=3)
    cv2.imwrite("x/same.png", picture(0))
    code, out, _ = run(capsys, "x/same.mp4", "y/same.mp4", "y/SAME.mp4", "y/same.mkv", "x/same.png")
    assert code == 0
    made = [f"{name}-sfpp.mp4" for name in ("x_same", "y_same", "y_SAME-2", "y_same-3")] + ["x_same-2-sfpp.png"]
    assert [line.split()[1] for line in out.splitlines() if line.startswith("wrote ")] == made
    assert all((here / name).is_file() for name in made)


def test_single_pictures_share_a_folder_of_masks(here, capsys):
    for folder in ("x", "y"):
        (here / folder).mkdir()
        cv2.imwrite(f"{folder}/p.png", picture(0))
    cv2.imwrite("q.png", picture(0))
    assert run(capsys, "x/p.png", "y/p.png", "q.png", "--masks", "labels/")[0] == 0
    assert sorted(path.name for path in (here / "labels").iterdir()) == ["q.png", "x_p.png", "y_p.png"]
    code, _, err = run(capsys, "q.png", "a.mp4", "--masks", "other/")
    assert (code, "other/ cannot hold 2 sources" in err) == (2, True)


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize("way", ["itself", "spelled", "soft", "hard", "through a folder", "a link to a link"])
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".mp4", ["-o", "{}"]),
        (".mkv", ["-o", "{}"]),
        (".jsonl", ["-o", "{}"]),
        (".jsonl", ["--json", "{}"]),
        (".data", ["--json", "{}"]),
        (".png", ["-o", "x.mp4", "--snapshot", "{}"]),
        (".jsonl", ["--keypoints-json", "{}"]),
        (".raw", ["-o", "raw://{}"]),
        (".raw", ["-o", "x.mp4", "-o", "raw://{}?format=gray8"]),
    ],
)
@pytest.mark.parametrize("others", [[], ["b.mp4"], [SCENE]], ids=["one", "two", "live"])
def test_no_output_of_any_kind_replaces_a_source(here, capsys, way, suffix, options, others):
    source, output = here / f"source{suffix}", here / f"output{suffix}"
    (here / "a.mp4").rename(source)
    if suffix == ".png":
        cv2.imwrite(str(source), picture(0))
    if way == "soft":
        output.symlink_to(source.name)
    elif way == "hard":
        output.hardlink_to(source)
    elif way == "a link to a link":
        (here / "between").symlink_to(source)
        output.symlink_to("between")
    elif way == "through a folder":
        (here / "folder").symlink_to(here)
        output = here / "folder" / source.name
    else:
        output = source if way == "itself" else f"./../{here.name}/{source.name}"
    before = contents(here)
    named = [option.format(output) for option in options]
    if others and "-o" in named and "raw:" not in str(named):
        named = [each.replace(str(output), f"{{source}}{suffix}") if way == "itself" else each for each in named]
    code, _, err = run(capsys, source.name, *others, *named)
    assert code == 2, err
    assert ("is the input itself" in err) or ("cannot hold 2 sources" in err)
    assert contents(here) == before


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize("option", ["--json", "--keypoints-json"])
def test_what_else_is_read_is_not_overwritten_either(here, capsys, option):
    for name, target in (("soft.jsonl", "model.onnx"), ("facts.json", "facts.jsonl")):
        (here / "facts.jsonl").write_text("{}")
        (here / name).unlink(missing_ok=True)
        (here / name).hardlink_to(here / target)
        code, _, err = run(capsys, "a.mp4", option, name, "--contract", "facts.jsonl")
        assert (code, f"the output {name} is the input itself" in err) == (2, True), err
    (here / "street.engine").write_text("engine")
    (here / "street.json").write_text("its contract")
    code = main(["street.engine", "a.mp4", option, "street.json"])
    assert (code, "the output street.json is the input itself" in capsys.readouterr().err) == (2, True)


@pytest.mark.parametrize(
    ("source", "words", "existing"),
    [
        ("a.mp4", ["--masks", "labels"], "labels/a-000003.png"),
        ("a.mp4", ["-o", "labels/"], "labels/A-1000003.PNG"),
        ("in", ["--masks", "labels"], "labels/0.png"),
        ("in", ["-o", "labels/"], "labels/0.png"),
        ("in/*.jpg", ["--masks", "labels/"], "labels/0.png"),
        ("in/0.jpg", ["--masks", "labels/"], "labels/0.png"),
        ("in/0.jpg", ["-o", "labels"], "labels/0.png"),
    ],
)
def test_pictures_in_a_folder_overwrite_none(here, capsys, source, words, existing, monkeypatch):
    """Such as the truth about the pictures, which has their names."""
    for folder in ("in", "labels"):
        (here / folder).mkdir()
    cv2.imwrite("in/0.jpg", picture(0))
    (here / existing).write_text("mine")
    before = contents(here)
    with monkeypatch.context() as patched:
        patched.setattr(running, "_loaded", lambda arguments: pytest.fail("the model was opened"))
        code, _, err = run(capsys, source, *words)
    assert (code, f"{existing} exists, and would be overwritten; give another folder" in err) == (2, True), err
    assert contents(here) == before
    (here / existing).rename(here / "labels" / "other-0.png")
    assert run(capsys, source, *words)[0] == 0
    assert (here / "labels" / "other-0.png").read_text() == "mine"


def test_pictures_of_a_camera_overwrite_none(here, capsys):
    (here / "frames").mkdir()
    (here / "frames" / "test-000001.png").write_text("mine")
    code, _, err = run(capsys, f"{SCENE}&frames=3", "-o", "frames/", "--masks", "frames2", "--policy", "every-frame")
    assert code == 0, err
    made = sorted(path.name for path in (here / "frames").iterdir())
    assert made == ["test-000000.png", "test-000001-2.png", "test-000001.png", "test-000002.png"]
    assert (here / "frames" / "test-000001.png").read_text() == "mine"


def test_no_frame_of_a_file_is_dropped_beside_a_camera(here, capsys, monkeypatch):
    """Though the camera's are, by a model and a disk that are slow: a file waits."""

    def slowed(kind, name, pause_s):
        work = getattr(kind, name)

        def slow(self, item):
            time.sleep(pause_s)
            return work(self, item)

        monkeypatch.setattr(kind, name, slow)

    slowed(Segmenter, "infer", 0.03)
    slowed(RecordLines, "write_record", 0.1)
    write_clip(here / "c.mp4", frames=40)
    words = ["-o", "{source}-out.mp4", "-o", "frames-{source}/", "--json", "all.jsonl"]
    code, _, err = run(capsys, "c.mp4", f"{SCENE}&frames=120", *words, *PLAIN)
    assert code == 0, err
    assert "frames that are old by the time the model is free are dropped, but none of c" in err
    records = [json.loads(line) for line in (here / "all.jsonl").read_text().splitlines()]
    assert [each["frame"] for each in records if each["source"] == "c"] == list(range(40))
    assert indices("c-out.mp4") == list(range(40))
    assert len(list((here / "frames-c").iterdir())) == 40
    assert len([each for each in records if each["source"] == "test"]) < 120


def test_a_file_that_breaks_does_not_end_the_others(here, capsys, monkeypatch):
    cv2.imwrite("bad.png", picture(0))
    from sfpp.runtime.errors import MediaError
    from sfpp.runtime.pixels import pictures

    read = pictures.read_picture

    def fails(path):
        if path.name == "bad.png":
            raise MediaError("bad.png is broken")
        return read(path)

    monkeypatch.setattr(pictures, "read_picture", fails)
    code, out, err = run(capsys, "a.mp4", "bad.png", "b.mp4")
    assert code == 1
    assert "error: bad.png is broken; the others go on" in err
    assert out.splitlines()[-1] == "2 of 3 sources are done"
    assert err.splitlines()[-1] == "sfpp-run: warning: not done: bad.png"
    assert (here / "b-sfpp.mp4").is_file()
    assert not (here / "bad-sfpp.png").exists()


@pytest.mark.usefixtures("unopened")
def test_a_file_that_does_not_exist_is_told_before_any_runs(here, capsys):
    code, _, err = run(capsys, "a.mp4", "missing.avi", "b.mp4")
    assert (code, "missing.avi" in err) == (1, True)
    assert not (here / "a-sfpp.mp4").exists()


def test_files_that_cannot_be_opened_end_no_others_and_are_named_at_the_end(here, capsys):
    for name in ("bad.mp4", "worse.mkv"):
        (here / name).write_text("no video")
    code, out, err = run(capsys, "a.mp4", "bad.mp4", "worse.mkv", "b.mp4")
    assert code == 1
    assert out.splitlines()[-1] == "2 of 4 sources are done"
    assert err.splitlines()[-2:] == [f"sfpp-run: warning: not done: {name}" for name in ("bad.mp4", "worse.mkv")]
    assert len(read_clip(here / "a-sfpp.mp4")) == 7
    assert len(read_clip(here / "b-sfpp.mp4")) == 5


@pytest.mark.usefixtures("unopened")
def test_where_no_file_can_be_opened_nothing_runs(here, capsys):
    for name in ("bad.mp4", "worse.mkv"):
        (here / name).write_text("no video")
    code, _, err = run(capsys, "bad.mp4", "worse.mkv")
    assert code == 1
    assert "worse.mkv cannot be opened as a video" in err


def test_ctrl_c_ends_them_all(here):
    write_clip(here / "c.mp4", frames=400)
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_COMMAND, "model.onnx", "c.mp4", "b.mp4", "--backend", "onnxruntime"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    while process.stderr.readline() != "frame\n":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate()
    assert process.returncode == 130
    assert "of c: stopped early, and what is written is complete" in out
    assert 1 <= len(read_clip(here / "c-sfpp.mp4")) < 400
    assert not (here / "b-sfpp.mp4").exists()


@pytest.mark.usefixtures("unopened")
def test_boxes_belong_to_one_source(here, capsys):
    (here / "boxes.json").write_text("[]")
    code, _, err = run(capsys, "a.mp4", "b.mp4", "--boxes", "boxes.json")
    assert (code, "--boxes tells the frames of one source, and there are 2" in err) == (2, True)


def test_a_thousand_files_need_no_thousand_open_ones(here, capsys):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = [f"x{number}.mp4" for number in range(60)]
    for name in files:
        write_clip(here / name, frames=1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 40, limits[1]))
    try:
        code, out, err = run(capsys, *files)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert (code, out.splitlines()[-1:]) == (0, ["60 of 60 sources are done"]), err


def test_a_pattern_that_matches_videos_is_each_of_them(here, capsys):
    code, out, _ = run(capsys, "*.mp4")
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("wrote ")] == ["wrote a-sfpp.mp4", "wrote b-sfpp.mp4"]
    code, _, err = run(capsys, "*.mov")
    assert (code, "the pattern *.mov matches nothing" in err) == (1, True)


def test_frames_of_renamed_pictures_are_drawn_right(here, capsys):
    """The mask of each picture is its own, whatever its name has become."""
    for folder, channel in (("x", 0), ("y", 2)):
        (here / folder).mkdir()
        image = np.zeros((48, 64, 3), np.uint8)
        image[..., channel] = 200
        cv2.imwrite(f"{folder}/p.png", image)
    assert run(capsys, "x/p.png", "y/p.png", "--masks", "m")[0] == 0
    blue, red = (cv2.imread(f"m/{name}.png", cv2.IMREAD_UNCHANGED) for name in ("x_p", "y_p"))
    assert np.unique(blue) != np.unique(red)


@pytest.fixture
def nowhere(here):
    """A private copy of /dev/null."""
    try:
        os.mknod("null.jsonl", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        Path("null.jsonl").open("wb").close()
    except (AttributeError, OSError) as error:
        pytest.skip(f"devices cannot be made here: {error}")
    for name in ("null.mp4", "null.png", "null.mkv"):
        Path(name).hardlink_to("null.jsonl")
    return here


@pytest.mark.parametrize(
    "options",
    [
        ["-o", "null.mp4"],
        ["-o", "x.mp4", "--snapshot", "null.png"],
        ["--json", "null.jsonl"],
        ["-o", "null.jsonl"],
        ["-o", "raw://null.jsonl"],
        ["--json", "null.jsonl", "-o", "raw://null.jsonl"],
    ],
)
def test_devices_are_written_through(nowhere, capsys, options):
    code, _, err = run(capsys, "a.mp4", *options)
    assert code == 0, err
    assert all(stat.S_ISCHR(path.stat().st_mode) for path in nowhere.glob("null.*"))
    assert sorted(path.name for path in nowhere.iterdir() if not path.name.startswith(("null", "x."))) == [
        "a.mp4",
        "b.mp4",
        "model.onnx",
    ]


def test_a_recording_needs_an_ordinary_file(nowhere, capsys):
    code, _, err = run(capsys, f"{SCENE}&frames=3", "-o", "null.mkv")
    assert (code, "cannot write null.mkv: it is no ordinary file; give the name of one" in err) == (1, True)
    assert stat.S_ISCHR((nowhere / "null.mkv").stat().st_mode)


@pytest.mark.parametrize("kind", ["file", "camera"])
def test_links_are_followed(here, capsys, kind):
    (here / "real").mkdir()
    names = ("o.mp4", "s.png", "j.jsonl")
    for name in names:
        (here / "real" / name).write_text("" if name == "j.jsonl" else "older")  # lines are added to
        (here / name).symlink_to(f"real/{name}")
    source = "a.mp4" if kind == "file" else f"{SCENE}&frames=7"
    words = ["-o", "o.mp4", "--snapshot", "s.png", "--json", "j.jsonl", "--policy", "every-frame"]
    code, _, err = run(capsys, source, *words)
    assert code == 0, err
    assert all((here / name).is_symlink() for name in names)
    assert len(read_clip(here / "real" / "o.mp4")) == 7
    assert len((here / "real" / "j.jsonl").read_text().splitlines()) == 7
    # What was recorded before stays, under another name beside the new one.
    older = sorted(path.name for path in (here / "real").iterdir() if path.name not in names)
    assert older == ([] if kind == "file" else ["o-1.mp4"])


def test_lines_go_on_where_an_open_file_stands(here):
    """As ``--json /dev/stdout > told`` does: the report goes elsewhere, and nothing is cut off."""
    program = (
        "import sys; print('before', flush=True); from sfpp.runtime.cli.run import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "model.onnx", "a.mp4", "--json", "/dev/stdout"]
    with Path("told").open("w") as told:
        done = subprocess.run(command, stdout=told, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, *lines = Path("told").read_text().splitlines()
    assert before == "before"
    assert [json.loads(line)["frame"] for line in lines] == list(range(7))
    assert "7 frames of a" in done.stderr


def test_a_class_that_has_no_text_for_a_name_is_refused(here, capsys):
    """OpenCV would end the process at it."""
    fields = json.loads(CONTRACT.to_json())
    fields["classes"][0] = "\ud800"
    model = onnx.load("model.onnx")
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(fields)})
    onnx.save(model, "model.onnx")
    code, _, err = run(capsys, "a.mp4", "-o", "x.mp4")
    assert code == 1
    assert r"the contract in model.onnx: classes: '\ud800' holds half of a surrogate pair" in err
    assert sorted(path.name for path in here.iterdir()) == ["a.mp4", "b.mp4", "model.onnx"]


def test_names_of_files_that_are_no_text(here, capsys, monkeypatch):
    name = "c\udcff.mp4"
    try:
        (here / "a.mp4").rename(name)
    except OSError as error:
        pytest.skip(f"this file system takes text only: {error}")
    assert run(capsys, name, *PLAIN)[0] == 0
    assert indices("c\udcff-sfpp.mp4") == list(range(7))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # no PyAV: OpenCV would end the process
    code, _, err = run(capsys, name)
    assert (code, "cannot be opened by OpenCV, since its name is not UTF-8" in err) == (1, True)


@pytest.mark.parametrize("count", [2, 3])
def test_each_camera_is_recorded(here, capsys, count):
    sources = [f"{SCENE}&frames=6&seed={seed}" for seed in range(count)]
    (here / "test-0-sfpp.mp4").write_text("older")
    code, _, err = run(capsys, *sources, "--policy", "every-frame")
    assert code == 0, err
    for seed in range(count):
        assert len(read_clip(here / f"test-{seed}-sfpp.mp4")) == 6
    assert (here / "test-0-sfpp-1.mp4").read_text() == "older"


def test_one_source_twice_is_told(here, capsys):
    for words in (["a.mp4", "./a.mp4"], [f"{SCENE}&frames=3"] * 2, ["demo", "b.mp4", "demo"]):
        code, _, err = run(capsys, *words)
        assert (code, "is given twice; give each source once" in err) == (2, True), err


def test_a_folder_of_videos_is_each_of_them(here, capsys):
    (here / "clips").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (here / name).rename(here / "clips" / name)
    (here / "clips" / "notes.txt").write_text("day 1")
    code, out, err = run(capsys, "clips", "-o", "labeled/")
    assert (code, out.splitlines()[-1]) == (0, "2 of 2 sources are done"), err
    assert sorted(path.name for path in (here / "labeled").iterdir()) == ["a-sfpp.mp4", "b-sfpp.mp4"]


@pytest.mark.slow
def test_a_thousand_videos_take_no_more_than_a_hundred(here):
    """Memory and threads stay where they are, and bad ones are told at the end."""
    (here / "clips").mkdir()
    data = write_clip(here / "clip.mp4", frames=10).read_bytes()
    for number in range(1000):
        (here / "clips" / f"{number}.mp4").write_bytes(b"bad" if number % 100 == 7 else data)
    program = "import sys; from sfpp.runtime.cli.run import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "model.onnx", "clips", "-o", "labeled/"]
    with (here / "said").open("w") as said:
        process = subprocess.Popen(
            [*command, "--backend", "onnxruntime", "--threads", "1"], stdout=said, stderr=subprocess.STDOUT
        )
        samples = []
        while process.poll() is None:
            done = len(list((here / "labeled").glob("[0-9]*.mp4"))) if (here / "labeled").is_dir() else 0
            status = Path(f"/proc/{process.pid}/status").read_text()
            facts = dict(line.split(":", 1) for line in status.splitlines())
            if done and "VmRSS" in facts:
                samples.append((done, int(facts["Threads"]), int(facts["VmRSS"].split()[0]) / 1024))
            time.sleep(0.1)
    lines = (here / "said").read_text().splitlines()
    assert process.returncode == 1
    assert [line for line in lines if line == "990 of 1000 sources are done"]
    assert lines[-10:] == [f"sfpp-run: warning: not done: clips/{number}.mp4" for number in range(7, 1000, 100)]
    assert len(list((here / "labeled").iterdir())) == 990
    assert max(threads for _, threads, _ in samples) < 40
    early = max(megabytes for done, _, megabytes in samples if 50 <= done < 150)
    late = max(megabytes for done, _, megabytes in samples if done >= 850)
    print(f"{max(threads for _, threads, _ in samples)} threads; {early:.0f} MB, then {late:.0f} MB")
    assert late < early + 20


def test_a_pipe_of_a_video_becomes_one(here, capsys):
    os.mkfifo("pipe")
    clip = write_clip(here / "clip.mkv", frames=20).read_bytes()
    sender = threading.Thread(target=lambda: (here / "pipe").write_bytes(clip))
    sender.start()
    code, _, err = run(capsys, "pipe", "-o", "out.mp4")
    sender.join()
    assert code == 0, err
    assert "sound, if there is any, is left out" in err
    assert indices("out.mp4") == list(range(20))
