import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sfpp.runtime import KEYPOINT_SETS, MediaError, Pose, Segmentation, SfppError, UsageError
from sfpp.runtime.motion.options import FromKey
from sfpp.runtime.text import clean_text
from sfpp.runtime.video import Frame
from sfpp.runtime.video.sinks.records import (
    frame_record,
    image_ids_of,
    keypoints_file,
    record_lines,
)
from tests.runtime.video.clips import picture

ROOT = Path(__file__).parents[4]
LATENCY = {"prepare": 1.23456, "infer": 20.0}


def frame(index=7, **changes):
    fields = {"taken_s": time.monotonic() - 0.25, "source": "door", **changes}
    return Frame(index, picture(index), 1.23456, f"door-{index:06d}", **fields)


def pose_of(people):
    rng = np.random.default_rng(0)
    spec = next(iter(KEYPOINT_SETS.values()))
    count = len(spec.names)
    return Pose(
        keypoints_xy=rng.uniform(0, 60, (people, count, 2)).astype(np.float32),
        scores=rng.uniform(0, 1, (people, count)).astype(np.float32),
        boxes_xywh=rng.uniform(1, 40, (people, 4)).astype(np.float32),
        spec=spec,
    )


def test_a_segmented_frame_tells_each_classs_share():
    labels = np.zeros((10, 30), np.uint8)
    labels[:1] = 2
    answer = Segmentation(labels, ("road", "car", "sky"), ((0, 0, 0),) * 3)
    before_s = time.time()
    record = frame_record(frame(), answer, latency_ms=LATENCY)
    values = dict(record)
    assert values["taken_unix_s"] == pytest.approx(before_s - 0.25, abs=0.1)
    assert values["age_ms"] == pytest.approx(250, abs=100)
    assert values["age_ms"] == round(values["age_ms"], 1)
    del values["taken_unix_s"], values["age_ms"]
    assert values == {
        "source": "door",
        "frame": 7,
        "frame_name": "door-000007",
        "time_s": 1.235,
        "latency_ms": {"prepare": 1.23, "infer": 20.0},
        "shares": {"road": 0.9, "sky": 0.1},
    }


def test_carried_labels_have_an_age_of_their_own():
    labels = np.zeros((10, 30), np.uint8)
    answer = Segmentation(labels, ("road", "car"), ((0, 0, 0),) * 2, from_key=FromKey(4, 0.2, 0.75))
    record = frame_record(frame(), answer)
    assert record["labels_age_ms"] == pytest.approx(record["age_ms"] + 200)
    assert record["carried"] == {"from": 4, "seconds": 0.2, "belief": 0.75}
    assert "labels_age_ms" not in frame_record(frame(taken_s=0.0), answer)


def test_people_are_as_in_the_keypoints_file(tmp_path):
    pose = dataclasses.replace(pose_of(2), ids=np.array([4, 9]))
    values = frame_record(frame(), pose)
    with keypoints_file(tmp_path / "keypoints.jsonl") as file:
        file.write(frame(), pose)
    lines = [json.loads(line) for line in (tmp_path / "keypoints.jsonl").read_text().splitlines()]
    for person, line in zip(values["people"], lines, strict=True):
        assert set(person) == {"track_id", "score", "bbox", "keypoints"}
        assert person == {name: line[name] for name in person}
    assert [person["track_id"] for person in values["people"]] == [4, 9]
    np.testing.assert_allclose(values["people"][1]["keypoints"][::3], pose.keypoints_xy[1, :, 0], atol=0.006)
    assert "latency_ms" not in values
    assert "shares" not in values
    assert frame_record(frame(), pose_of(0))["people"] == []


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_json_file_is_one_list_and_any_other_has_lines(tmp_path, count):
    for name in ("k.json", "k.jsonl"):
        with keypoints_file(tmp_path / name, image_ids={"door-000007": 139}) as file:
            for index in range(count):
                file.write(frame(7 + index), pose_of(1))
    people = json.loads((tmp_path / "k.json").read_text())
    lines = (tmp_path / "k.jsonl").read_text().splitlines()
    assert people == [json.loads(line) for line in lines]
    assert [person["image_id"] for person in people] == [139, 8, 9][:count]
    assert {person["category_id"] for person in people} <= {1}


def test_a_list_of_people_is_complete_after_ctrl_c(tmp_path):
    def stopped():
        with keypoints_file(tmp_path / "k.json") as file:
            file.write(frame(), pose_of(2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [person["image_id"] for person in json.loads((tmp_path / "k.json").read_text())] == [7, 7]


@pytest.mark.parametrize(
    ("names", "known", "expected"),
    [
        (("000000000139", "000000000632"), None, (139, 632)),
        (("COCO_val2014_000000000139", "7"), None, (139, 7)),
        (("a", "7"), None, None),
        (("07", "7"), None, None),
        (("clip2",), None, None),
        (("a", "b"), {"a": 5, "b": 3, "c": 1}, (5, 3)),
        (("a", "7"), {"a": 5}, None),
        (("8", "7"), {"8": 5}, (8, 7)),
        ((), None, ()),
    ],
)
def test_pictures_have_the_ids_of_coco(names, known, expected):
    assert image_ids_of(names, known) == ({} if expected is None else dict(zip(names, expected, strict=True)))


def test_what_is_not_known_is_left_out_and_nothing_breaks_the_json(tmp_path):
    record = frame_record(frame(taken_s=0.0))
    assert record == {"source": "door", "frame": 7, "frame_name": "door-000007", "time_s": 1.235}
    strange = frame(source='a\u2028"b\nc')
    with record_lines(tmp_path / "out.jsonl") as lines:
        lines.write_record(frame_record(strange, latency_ms={"infer": float("nan")}))
    text = (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    assert json.loads(text)["latency_ms"] == {"infer": None}
    assert json.loads(text)["source"] == 'a\u2028"b\nc'
    assert text.count("\n") == 1


def test_each_line_can_be_read_at_once_and_stays_after_an_error(tmp_path):
    path = tmp_path / "out.jsonl"

    def broken_off():
        with record_lines(path) as lines:
            for index in range(3):
                lines.write_record(frame_record(frame(index)))
                told = path.read_text(encoding="utf-8").split("\n")
                assert [json.loads(line)["frame"] for line in told[:-1]] == list(range(index + 1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken_off()
    assert len(path.read_text().splitlines()) == 3


def test_as_a_sink_it_tells_which_frames_came(tmp_path):
    with record_lines(tmp_path / "out.jsonl") as lines:
        lines.write(frame(3), picture(3))
    assert json.loads((tmp_path / "out.jsonl").read_text())["frame"] == 3


def test_lines_are_added_to_those_of_before(tmp_path):
    path, events = tmp_path / "out.jsonl", []
    path.touch()
    for index in range(3):
        with record_lines(path, on_event=events.append) as lines:
            lines.write(frame(index), picture(0))
    assert [json.loads(line)["frame"] for line in path.read_text().splitlines()] == [0, 1, 2]
    assert [event.line() for event in events] == ["out.jsonl: note: lines are added to those of before"] * 2


def test_after_a_line_that_was_broken_off_a_new_one_begins(tmp_path):
    path = tmp_path / "out.jsonl"
    for index in range(2):
        with record_lines(path) as lines:
            lines.write(frame(index), picture(0))
        path.write_bytes(path.read_bytes()[:-5]) if index == 0 else None
    first, second = path.read_text().splitlines()
    assert first.startswith('{"source"')
    assert json.loads(second)["frame"] == 1


@pytest.mark.parametrize("held", [b"[1, 2]\n", b"{\n", b'{"mIoU": 1}\n', b"\x89PNG\r\n", b"notes of mine", b"7\n"])
def test_what_holds_something_else_is_left_alone(tmp_path, held):
    path = tmp_path / "out.jsonl"
    path.write_bytes(held)
    with pytest.raises(UsageError, match=r"out\.jsonl exists, and lines can only be added"), record_lines(path):
        pytest.fail("it opened")
    assert path.read_bytes() == held


def test_what_is_no_text_in_names_is_escaped(tmp_path):
    name = "caf\udce9 ä \x1b[2J \x9b2J \x7f \u202egpj"  # lines may go to a terminal
    with record_lines(tmp_path / "out.jsonl") as lines:
        lines.write_record(frame_record(frame(source=name)))
    text = (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    assert json.loads(text)["source"] == name
    assert "ä" in text
    assert clean_text(text) == text


def test_a_file_in_place_of_a_folder_is_told_before_any_frame(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SfppError, match="file is no folder"), record_lines(tmp_path / "file" / "out.jsonl"):
        pytest.fail("it opened")


STANDARD_OUTPUT = """
import sys
from sfpp.runtime.video.sinks.records import frame_record, record_lines
from tests.runtime.video.clips import frame
print("said before")
with record_lines("-", on_event=lambda event: print(event.line(), file=sys.stderr)) as lines:
    for index in range(int(sys.argv[1])):
        lines.write_record(frame_record(frame(index)))
"""


def standard_output_of(count, **options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-c", STANDARD_OUTPUT, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_standard_output_takes_lines_and_may_be_closed():
    with standard_output_of(3) as process:
        told, complained = process.communicate()
    assert told.splitlines()[0] == "said before"
    assert [json.loads(line)["frame"] for line in told.splitlines()[1:]] == [0, 1, 2]
    assert (complained, process.returncode) == ("", 0)
    # More than a pipe holds, so it is still writing when its reader goes away.
    with standard_output_of(5000) as process:
        process.stdout.readline()
        process.stdout.close()
        complained = process.stderr.read()
    assert complained == "standard output: ended: nobody reads the lines any more\n"
    assert process.returncode == 0


@pytest.mark.skipif(not Path(os.devnull).with_name("full").exists(), reason="needs the device of Linux that is full")
def test_a_full_disk_is_an_error():
    full = Path(os.devnull).with_name("full")
    with pytest.raises(MediaError, match="No space left on device; make room"), record_lines(full) as lines:
        lines.write(frame(), picture(0))
