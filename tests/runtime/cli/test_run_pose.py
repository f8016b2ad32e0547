"""The command with a pose model, as a user meets it."""

import json
import re
import signal
import subprocess
import sys

import av
import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sfpp.runtime.cli.run import main
from sfpp.runtime.contract import METADATA_KEY
from tests.runtime.cli.test_run import write_model
from tests.runtime.people.detector_files import write_detector, yolov8_output
from tests.runtime.people.dots import CONTRACT, box_of, keypoints_of, picture
from tests.runtime.video.clips import read_clip

WALK = [(50 + 4 * index, 60) for index in range(12)]
GIVEN = {"pose.onnx", "segment.onnx", "clip.mp4", "photo.png", "boxes.json", "photo.json", "detector.onnx"}


def write_pose_model(path):
    """The model of ``dots_estimator`` as an ONNX file."""
    nodes = [
        helper.make_node("Cast", ["frame"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["values"], ["channels"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["channels"], ["means"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Div", ["means", "white"], ["heatmaps"]),
    ]
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, [2, 64, 48, 3])
    heatmaps = helper.make_tensor_value_info("heatmaps", TensorProto.FLOAT, [2, 3, 16, 12])
    graph = helper.make_graph(nodes, "dots", [frame], [heatmaps])
    graph.initializer.append(numpy_helper.from_array(np.array(255, np.float32), "white"))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: CONTRACT.to_json()})
    onnx.save(model, path)


def write_walk(path, middles):
    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0", "crf": "5"})
        stream.height, stream.width, stream.pix_fmt = 120, 200, "yuv444p"
        for middle in middles:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(middle), format="bgr24")))
        container.mux(stream.encode(None))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with models, a clip, a picture and boxes in it."""
    monkeypatch.chdir(tmp_path)
    write_pose_model(tmp_path / "pose.onnx")
    write_model(tmp_path / "segment.onnx")
    write_walk(tmp_path / "clip.mp4", WALK)
    cv2.imwrite(str(tmp_path / "photo.png"), picture(WALK[0]))
    boxes = [{"image_id": index, "bbox": box_of(middle)} for index, middle in enumerate(WALK)]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    (tmp_path / "photo.json").write_text(json.dumps([{"file_name": "photo.png", "bbox": box_of(WALK[0])}]))
    (x, y), (width, height) = WALK[0], box_of(WALK[0])[2:]
    output = yolov8_output([(x, y, width, height)], (160, 224))
    output[:, :2] += np.array([12, 20])[:, np.newaxis]  # the frame of 200x120 lies in the middle of 224x134
    write_detector(tmp_path / "detector.onnx", output, size_hw=(160, 224))
    return tmp_path


def new_files(here):
    return sorted(path.name for path in here.iterdir() if path.name not in GIVEN)


def written_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_video_becomes_a_video_with_skeletons(here, capsys):
    assert main(["pose.onnx", "clip.mp4", "--boxes", "boxes.json"]) == 0
    assert new_files(here) == ["clip-sfpp.mp4"]
    before, after = read_clip(here / "clip.mp4"), read_clip(here / "clip-sfpp.mp4")
    assert len(after) == len(WALK)
    for index, (x, y) in enumerate(WALK):
        limb = slice(y - 4, y + 4), slice(x - 12, x + 12)  # both legs cross it
        assert before[index][limb].max() < 40 < 100 < after[index][limb].max()
    told = capsys.readouterr()
    lines = told.out.splitlines()
    stages = ["decode", "detect", "prepare", "infer", "keypoints", "draw", "encode"]
    assert [line.split()[0] for line in lines[1:8]] == stages
    assert lines[-2:] == ["12 frames of clip, 1.0 people a frame", "wrote clip-sfpp.mp4"]
    assert "sfpp-run: people are found by boxes.json, which has boxes for 12 frames\n" in told.err


def test_keypoints_alone_write_json_lines_only(here, capsys):
    arguments = ["--keypoints-json", "k.jsonl", "--boxes", "boxes.json", "--detect-every", "4", "--every", "2"]
    assert main(["pose.onnx", "clip.mp4", *arguments]) == 0
    assert new_files(here) == ["k.jsonl"]
    lines = written_lines(here / "k.jsonl")
    assert [line["image_id"] for line in lines] == list(range(0, 12, 2))
    assert {line["track_id"] for line in lines} == {1}
    for line in lines:
        found = np.array(line["keypoints"]).reshape(-1, 3)[:, :2]
        np.testing.assert_allclose(found, keypoints_of(WALK[line["image_id"]]), atol=6)
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines() if line.startswith(("detect", "infer"))] == ["2", "6"]


def test_a_live_pipeline_writes_keypoints_too(here):
    places = ["-o", "out.mp4", "--json", "all.jsonl", "--keypoints-json", "k.jsonl"]
    assert main(["pose.onnx", "clip.mp4", "--boxes", "boxes.json", *places]) == 0
    assert new_files(here) == ["all.jsonl", "k.jsonl", "out.mp4"]
    records, people = written_lines(here / "all.jsonl"), written_lines(here / "k.jsonl")
    assert [person["image_id"] for person in people] == list(range(len(WALK)))
    told = ("keypoints", "score", "bbox", "track_id")
    assert [record["people"] for record in records] == [[{name: each[name] for name in told}] for each in people]


def test_a_picture_tells_its_keypoints(here, capsys):
    assert main(["pose.onnx", "photo.png", "--boxes", "photo.json", "--flip-test"]) == 0
    assert new_files(here) == ["photo-sfpp.png"]
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("person 1, mean score ")
    found = np.array([line.split()[1:3] for line in out[1:4]], float)
    assert [line.split()[0] for line in out[1:4]] == ["head", "left_foot", "right_foot"]
    np.testing.assert_allclose(found[0], keypoints_of(WALK[0])[0], atol=5)
    assert "1 frame of photo, 1 person" in out


def test_the_flip_test_reaches_the_model(here):
    """Green is the left foot: seen in a mirror it is the right one's color, so that the mean is half of each."""
    for name, options in (("plain", []), ("flip", ["--flip-test"])):
        arguments = ["--boxes", "photo.json", "--keypoints-json", name, "--threshold", "0", *options]
        assert main(["pose.onnx", "photo.png", *arguments]) == 0
    plain, flip = (np.array(written_lines(here / name)[0]["keypoints"]).reshape(-1, 3) for name in ("plain", "flip"))
    assert plain[1:, 2].min() > 0.9
    assert flip[1:, 2].max() < 0.7


def test_a_detector_finds_the_people(here, capsys):
    assert main(["pose.onnx", "photo.png", "--detector", "detector.onnx", "--keypoints-json", "k.jsonl"]) == 0
    (line,) = written_lines(here / "k.jsonl")
    np.testing.assert_allclose(np.array(line["keypoints"]).reshape(-1, 3)[:, :2], keypoints_of(WALK[0]), atol=6)
    assert "people are found by detector.onnx (yolov8 style, 224x160 RGB 0 to 1, class 0, as" in capsys.readouterr().err


def test_cocos_pictures_get_their_own_boxes_and_ids(here, capsys):
    (here / "coco").mkdir()
    annotations = []
    for number, middle in ((139, WALK[0]), (632, WALK[8])):
        cv2.imwrite(f"coco/{number:012d}.png", picture(middle))
        annotations.append({"image_id": number, "category_id": 1, "bbox": box_of(middle), "score": 0.9})
    for document in (annotations[::-1], {"images": [], "annotations": annotations}):
        (here / "coco.json").write_text(json.dumps(document))
        assert main(["pose.onnx", "coco", "--boxes", "coco.json", "--keypoints-json", "k.json"]) == 0
        people = json.loads((here / "k.json").read_text())
        assert [person["image_id"] for person in people] == [139, 632]
        for person, middle in zip(people, (WALK[0], WALK[8]), strict=True):
            np.testing.assert_allclose(np.reshape(person["keypoints"], (-1, 3))[:, :2], keypoints_of(middle), atol=6)
    assert "people are found by coco.json, which has boxes for 2 of 2 pictures\n" in capsys.readouterr().err
    (here / "coco.json").write_text(json.dumps([{**annotations[0], "image_id": each} for each in (1, 2)]))
    assert main(["pose.onnx", "coco", "--boxes", "coco.json", "--keypoints-json", "k2.json"]) == 2
    assert "the image_id 2 of coco.json is none of the 2 pictures, which count from 0" in capsys.readouterr().err
    assert not (here / "k2.json").exists()


def test_images_of_a_data_set_give_the_ids_of_the_results(here):
    images = [{"id": 77, "file_name": "photo.png"}]
    document = {"images": images, "annotations": [{"image_id": 77, "category_id": 1, "bbox": box_of(WALK[0])}]}
    (here / "photo.json").write_text(json.dumps(document))
    assert main(["pose.onnx", "photo.png", "--boxes", "photo.json", "--keypoints-json", "k.json"]) == 0
    assert [person["image_id"] for person in json.loads((here / "k.json").read_text())] == [77]


def test_a_car_is_no_person(here, capsys):
    output = yolov8_output([(62, 80, 40, 60)], (160, 224), classes=2)
    facts = {"names": "{0: 'car', 1: 'person'}"}
    write_detector(here / "detector.onnx", output, size_hw=(160, 224), facts=facts)
    arguments = ["pose.onnx", "photo.png", "--detector", "detector.onnx", "--threshold", "0", "--keypoints-json"]
    assert main([*arguments, "k.jsonl"]) == 0
    assert (here / "k.jsonl").read_text() == ""
    assert main([*arguments, "car.jsonl", "--person-class", "car"]) == 0
    assert len(written_lines(here / "car.jsonl")) == 1
    told = capsys.readouterr().err
    assert "class 1 'person') in" in told
    assert "class 0 'car') in" in told
    assert main(["pose.onnx", "photo.png", "--person-class", "car", "--keypoints-json", "l"]) == 2


def test_without_a_word_about_people_one_line_says_what_is_done(here, capsys, monkeypatch):
    monkeypatch.delattr(cv2, "HOGDescriptor", raising=False)
    assert main(["pose.onnx", "photo.png"]) == 0
    err = capsys.readouterr().err
    assert err.count("people are found by") == 1
    assert "taking each whole frame as one person, as no detector was given and OpenCV" in err
    assert main(["pose.onnx", "photo.png", "--person", "hog"]) == 1
    assert "has no HOG people detector" in capsys.readouterr().err


def test_nobody_anywhere_is_said(here, capsys):
    cv2.imwrite("photo.png", np.zeros((120, 200, 3), np.uint8))
    assert main(["pose.onnx", "photo.png", "--person", "full-frame"]) == 0
    told = capsys.readouterr()
    assert "sfpp-run: warning: nobody is shown in any frame" in told.err
    assert "1 frame of photo, 0 people" in told.out
    np.testing.assert_array_equal(cv2.imread("photo-sfpp.png"), np.zeros((120, 200, 3), np.uint8))
    (here / "boxes.json").write_text("[]")
    assert main(["pose.onnx", "clip.mp4", "--boxes", "boxes.json", "--max-frames", "2"]) == 0
    assert "2 frames of clip, 0.0 people a frame, nobody in 2 of them" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "arguments", "words"),
    [
        ("pose.onnx", ["--masks", "m"], "--masks is for segmentation models, but pose.onnx is a pose model"),
        ("pose.onnx", ["--alpha", "0.5", "--no-legend"], "--alpha, --no-legend are for segmentation models"),
        ("segment.onnx", ["--detector", "detector.onnx"], "--detector is for pose models, but segment.onnx is a seg"),
        ("segment.onnx", ["--threshold", "0.3", "--detect-every", "1"], "--detect-every, --threshold are for pose"),
        ("segment.onnx", ["--keypoints-json", "k"], "--keypoints-json is for pose models"),
        ("segment.onnx", ["--flip-test"], "--flip-test is for pose models"),
        ("segment.onnx", ["--person", "hog"], "--person is for pose models"),
        ("pose.onnx", ["--person", "hog", "--boxes", "boxes.json"], "not allowed with argument"),
        ("pose.onnx", ["--person", "dog"], "invalid choice: 'dog'"),
        ("pose.onnx", ["--detect-every", "0"], "expected a whole number from 1"),
        ("pose.onnx", ["--threshold", "2"], "expected a number from 0 to 1"),
        ("pose.onnx", ["--boxes", "boxes.json", "--keypoints-json", "boxes.json"], "boxes.json is the input itself"),
        ("pose.onnx", ["--still"], "still (--still) is for segmentation models"),
        ("pose.onnx", ["--key-every", "4", "--no-look-ahead"], "key_every=4 (--key-every) lets keypoints lie between"),
    ],
)
def test_wrong_usage_exits_with_2(here, capsys, model, arguments, words):
    try:
        code = main([model, "clip.mp4", *arguments])
    except SystemExit as end:
        code = end.code
    assert code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(errors) == 1
    assert words in errors[0]
    assert new_files(here) == []


def test_motion_that_cannot_be_is_refused_before_the_model_is_opened(here, capsys):
    def refusal(*arguments):
        assert main(["pose.onnx", *arguments]) == 2
        told = capsys.readouterr().err
        assert "runs on" not in told
        return told

    contract = here / "contract.json"
    contract.write_text(CONTRACT.to_json())
    (here / "pose.onnx").write_bytes(b"nothing that could be opened")
    assert "key_every=auto" in refusal("test://?frames=3", "--key-every", "auto", "--contract", str(contract))
    assert "detect_every=5" in refusal("clip.mp4", "--still", "--contract", str(contract))
    follow = refusal("test://?frames=3", "--policy", "follow", "--contract", str(contract))
    assert "--policy follow is for segmentation models" in follow


def test_keypoints_in_motion(here):
    arguments = ["--boxes", "boxes.json", "--json", "all.jsonl", "--smooth", "--key-every", "5"]
    assert main(["pose.onnx", "clip.mp4", *arguments]) == 0
    lines = written_lines(here / "all.jsonl")
    assert [line["frame"] for line in lines] == list(range(12))
    carried = [line.get("carried") and line["carried"]["from"] for line in lines]
    assert carried == [None, 0, 0, 0, 0, None, 5, 5, 5, 5, None, None]
    assert lines[7]["carried"] == {"from": 5, "seconds": 0.08}
    for line, middle in zip(lines, WALK, strict=True):
        (person,) = line["people"]
        found = np.array(person["keypoints"]).reshape(-1, 3)[:, :2]
        np.testing.assert_allclose(found, keypoints_of(middle), atol=7)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--detector", "nothing.onnx"], "nothing.onnx is not a file; give a person detector"),
        (["--detector", "pose.onnx"], "expected one input of floating point numbers"),
        (["--boxes", "nothing.json"], "the file of boxes nothing.json cannot be read: No such file"),
        (["--boxes", "clip.mp4"], "clip.mp4 cannot be read as UTF-8 text"),
        (["--keypoints-json", "pose.onnx/k.jsonl", "--person", "full-frame"], "pose.onnx is no folder"),
    ],
)
def test_a_failure_is_one_line_and_leaves_nothing(here, capsys, arguments, words):
    assert main(["pose.onnx", "clip.mp4", *arguments]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if ": error: " in line]
    assert len(errors) == 1
    assert words in errors[0]
    assert new_files(here) == []


SLOW_COMMAND = """
import sys, time
from sfpp.runtime.cli.run import main
from sfpp.runtime.pose import PoseEstimator
infer = PoseEstimator.infer
def slow(self, prepared):
    print("frame", file=sys.stderr, flush=True)
    time.sleep(0.02)
    return infer(self, prepared)
PoseEstimator.infer = slow
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_keeps_the_video_and_the_keypoints(here):
    write_walk(here / "clip.mp4", WALK * 30)
    arguments = ["pose.onnx", "clip.mp4", "out.mp4", "--keypoints-json", "k.jsonl", "--person", "full-frame"]
    arguments += ["--threshold", "0"]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_COMMAND, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    before = 0
    while before < 20:
        line = process.stderr.readline()
        assert line, process.stdout.read()  # the command ended by itself
        before += line == "frame\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    started = before + err.splitlines().count("frame")
    assert process.returncode == 130, err
    frames = int(re.search(r"(\d+) frames of clip, 1.0 people a frame: stopped early", out)[1])
    assert len(read_clip(here / "out.mp4")) == len(written_lines(here / "k.jsonl")) == frames
    assert 0 < frames <= started < 200  # those that were still on their way are dropped
    assert new_files(here) == ["k.jsonl", "out.mp4"]
