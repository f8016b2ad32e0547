import contextlib
import json
import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest

from sfpp.runtime import BackendError, PoseEstimator, SfppError, UsageError
from sfpp.runtime.people import BoxesFile, FollowedPose, FullFrame
from sfpp.runtime.people.motion import Steady
from sfpp.runtime.people.tracking import Follower
from sfpp.runtime.video import Pipeline
from sfpp.runtime.video.outputs import Outputs, Plan
from sfpp.runtime.video.sinks.records import keypoints_file
from tests.runtime.people.dots import Known, box_of, dots_estimator, keypoints_of, picture, source_of
from tests.runtime.video import running


class Collected(running.Collected):
    """A sink that keeps what it is given."""

    @property
    def ids(self):
        return [pose.ids.tolist() for pose in self.given]


# Two people, one walking to the right and one standing.
WALK = [[(40 + 6 * index, 50), (160, 60)] for index in range(8)]
IMAGES = [picture(*middles) for middles in WALK]
BOXES = [[box_of(middle) for middle in middles] for middles in WALK]


def run(images, *, finder, overlays=(), detect_every=1, threshold=0.3, **options):
    with source_of(images) as source, dots_estimator() as model:
        followed = FollowedPose(model, finder, detect_every=detect_every, threshold=threshold)
        return running.run(followed, source, overlays, style={"threshold": threshold}, **options)


@pytest.mark.parametrize("detect_every", [1, 2, 3, 100])
def test_each_frames_people_reach_the_sinks(detect_every):
    finder, keypoints = Known(BOXES), Collected()
    report = run(IMAGES, finder=finder, keypoints=[keypoints], detect_every=detect_every)
    assert finder.asked == list(range(0, 8, detect_every))
    assert keypoints.ids == [[1, 2]] * 8
    for frame, pose, middles in zip(keypoints.frames, keypoints.given, WALK, strict=True):
        expected = [keypoints_of(middle) for middle in middles]
        np.testing.assert_allclose(pose.keypoints_xy, expected, atol=6, err_msg=frame.name)  # a cell is 5 wide
        assert pose.scores.min() > 0.9
    assert (report.frames, [len(pose) for pose in keypoints.given]) == (8, [2] * 8)
    np.testing.assert_array_equal(report.last.keypoints_xy, keypoints.given[-1].keypoints_xy)


def one_after_the_other(images, *, finder, detect_every, threshold=0.3):
    """The keypoints, scores and ids of each frame, from a loop that has finished with a frame before the next."""
    follower, answers = Follower(finder, detect_every=detect_every, threshold=threshold), []
    with dots_estimator() as model:
        for index, image in enumerate(images):
            people = follower.find(image, index=index) if follower.finds_next else follower.follow(image)
            pose = model(image, people.boxes_xywh)
            follower.learn(people, pose.keypoints_xy, pose.scores)
            shown = (pose.scores >= threshold).any(axis=1)
            answers.append((pose.keypoints_xy[shown], pose.scores[shown], people.ids[shown]))
    return answers


@pytest.mark.parametrize("detect_every", [1, 2, 3, 100])
def test_threads_change_no_answer(detect_every):
    # People come, cross, vanish for a frame, and leave.
    middles = [[(30 + 9 * index, 60), (170 - 9 * index, 60)][: 1 + (index % 5 > 0)] for index in range(20)]
    images, boxes = [picture(*each) for each in middles], [[box_of(middle) for middle in each] for each in middles]
    keypoints = Collected()
    run(images, finder=Known(boxes), keypoints=[keypoints], detect_every=detect_every)
    expected = one_after_the_other(images, finder=Known(boxes), detect_every=detect_every)
    for pose, (keypoints_xy, scores, expected_ids) in zip(keypoints.given, expected, strict=True):
        np.testing.assert_array_equal(pose.keypoints_xy, keypoints_xy)
        np.testing.assert_array_equal(pose.scores, scores)
        np.testing.assert_array_equal(pose.ids, expected_ids)


def test_the_next_frames_people_are_sought_while_the_model_runs(monkeypatch):
    """Found in every frame, they do not wait for the last frame's keypoints."""
    finder, infer = Known(BOXES), PoseEstimator.infer
    sought = {index: threading.Event() for index in range(9)}
    sought[8].set()
    calls = []

    def find(frame_bgr, *, index=0, name=""):
        sought[index].set()
        return Known.find(finder, frame_bgr, index=index, name=name)

    def waits_for_the_finder(self, prepared):
        calls.append(1)
        assert sought[len(calls)].wait(20)
        return infer(self, prepared)

    monkeypatch.setattr(finder, "find", find)
    monkeypatch.setattr(PoseEstimator, "infer", waits_for_the_finder)
    assert run(IMAGES, finder=finder).frames == 8


@pytest.mark.parametrize("detect_every", [1, 3])
def test_frames_before_an_error_are_written(monkeypatch, detect_every):
    keypoints, infer, calls = Collected(), PoseEstimator.infer, []

    def fails_later(self, prepared):
        calls.append(1)
        if len(calls) == 6:
            raise BackendError("no more")
        return infer(self, prepared)

    monkeypatch.setattr(PoseEstimator, "infer", fails_later)
    with pytest.raises(BackendError, match="no more"):
        run(IMAGES, finder=Known(BOXES), keypoints=[keypoints], detect_every=detect_every)
    assert [frame.index for frame in keypoints.frames] == [0, 1, 2, 3, 4]


def test_overlays_show_the_skeletons_and_ids():
    overlay, keypoints = Collected(), Collected()
    run(IMAGES[:2], finder=Known(BOXES), overlays=[overlay], keypoints=[keypoints], threshold=0.5)
    for image, drawn, pose in zip(IMAGES, overlay.given, keypoints.given, strict=False):
        np.testing.assert_array_equal(drawn, pose.draw(image, threshold=0.5, ids=pose.ids.tolist()))
        np.testing.assert_array_equal(drawn, pose.draw(image, threshold=0.5))
        assert not np.array_equal(drawn, replace(pose, ids=None).draw(image, threshold=0.5))
        assert not np.array_equal(drawn, image)


def test_people_of_whom_nothing_is_seen_are_left_out_and_frames_without_anybody_counted():
    images = [picture((40, 50)), picture(), picture((40, 50), colors=(1,)), picture((160, 60))]
    boxes = [[box_of((160, 60)), box_of((40, 50))]] * 4
    overlay, keypoints = Collected(), Collected()
    run(images, finder=Known(boxes), overlays=[overlay], keypoints=[keypoints])
    assert keypoints.ids == [[2], [], [2], [1]]
    np.testing.assert_array_equal(overlay.given[1], images[1])
    for pose in keypoints.given:
        assert len(pose.boxes_xywh) == len(pose.scores) == len(pose.keypoints_xy) == len(pose.ids)
    everybody = Collected()
    run(images, finder=Known(boxes), keypoints=[everybody], threshold=0.0)
    assert [len(pose) for pose in everybody.given] == [2] * 4


def test_no_boxes_and_boxes_outside_of_the_frame_are_frames_without_people():
    keypoints = Collected()
    boxes = [[], [[500, 0, 20, 20], [-50, 0, 20, 20]], [box_of((40, 50)), [0, 300, 9, 9]]]
    run([IMAGES[0]] * 3, finder=Known(boxes), keypoints=[keypoints], overlays=[Collected()])
    assert [len(ids) for ids in keypoints.ids] == [0, 0, 1]


def test_nan_in_a_box_is_refused_in_words():
    with pytest.raises(UsageError, match="nan"):
        run(IMAGES[:1], finder=Known([[[1, 2, np.nan, 4]]]))


def test_who_leaves_the_frame_is_dropped():
    images = [picture((30 - 25 * index, 60)) for index in range(4)]
    keypoints = Collected()
    run(images, finder=Known([[box_of((30, 60))]]), keypoints=[keypoints], detect_every=100)
    assert keypoints.ids == [[1], [1], [], []]


def test_stages_are_timed_and_finding_only_where_it_happens():
    report = run(IMAGES, finder=Known(BOXES), detect_every=3, overlays=[Collected()], keypoints=[Collected()])
    counts = {stage: report.timer.latency(stage).count for stage in report.timer.stages}
    assert counts == {
        "decode": 8, "detect": 3, "prepare": 8, "infer": 8, "keypoints": 8, "draw": 8, "encode": 8, "people": 8
    }  # fmt: skip
    assert {"draw", "encode", "people"}.isdisjoint(run(IMAGES, finder=Known(BOXES)).timer.stages)


def test_every_max_frames_and_stopping_are_those_of_the_common_loop():
    finder, told = Known(BOXES), []
    report = run(IMAGES, finder=finder, every=3, max_frames=2, on_frame=told.append)
    assert (finder.asked, told, report.pipeline.stopped) == ([0, 3], [1, 2], False)
    report = run(IMAGES, finder=Known(BOXES), should_stop=lambda: True)
    assert (report.frames, report.pipeline.stopped) == (1, True)


def test_lines_are_coco_results(tmp_path):
    path = tmp_path / "keypoints.jsonl"
    poses = Collected()
    with keypoints_file(path) as file:
        run(IMAGES[:3], finder=Known(BOXES), keypoints=[file, poses], every=2)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["image_id"], line["track_id"], line["time_s"]) for line in lines] == [
        (0, 1, 0.0), (0, 2, 0.0), (2, 1, 0.08), (2, 2, 0.08)
    ]  # fmt: skip
    people = [(pose, row) for pose in poses.given for row in (0, 1)]
    for line, (pose, row) in zip(lines, people, strict=True):
        table = np.array(line["keypoints"]).reshape(-1, 3)
        np.testing.assert_allclose(table[:, :2], pose.keypoints_xy[row], atol=0.006)
        np.testing.assert_allclose(table[:, 2], pose.scores[row], atol=6e-5)
        assert line["score"] == pytest.approx(pose.scores[row].mean(), abs=6e-5)
        np.testing.assert_allclose(line["bbox"], pose.boxes_xywh[row], atol=0.006)
        assert line["category_id"] == 1
    assert lines[2]["frame_name"] == "dots-000002"
    # What a run has written can be given to the next one.
    again = Collected()
    run(IMAGES[:3], finder=BoxesFile(path), keypoints=[again], every=2)
    assert again.ids == poses.ids
    np.testing.assert_allclose(again.given[1].keypoints_xy, poses.given[1].keypoints_xy, atol=0.1)


def test_the_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "keypoints.jsonl"

    def ends_with(error):
        with keypoints_file(path) as file:
            run(IMAGES[:1], finder=Known(BOXES), keypoints=[file])
            raise error

    with pytest.raises(SfppError, match="no more"):
        ends_with(SfppError("no more"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt):
        ends_with(KeyboardInterrupt())
    assert len(path.read_text().splitlines()) == 2
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(SfppError, match="is no folder"), keypoints_file(path / "k.jsonl"):
        pass


def test_a_run_without_anybody_leaves_an_empty_file(tmp_path):
    with keypoints_file(tmp_path / "keypoints.jsonl") as file:
        report = run([picture()], finder=FullFrame(), keypoints=[file])
    assert (tmp_path / "keypoints.jsonl").read_text() == ""
    assert (report.frames, len(report.last)) == (1, 0)


def test_keypoints_must_not_overwrite_what_is_read(tmp_path):
    boxes = tmp_path / "boxes.json"
    with source_of(IMAGES) as source:
        Plan({source.name: Outputs(keypoints=str(boxes))}).check([source])
        with pytest.raises(UsageError, match="is the input itself"):
            Plan({source.name: Outputs(keypoints=str(boxes))}).check([source], also_read=[str(boxes)])
        with pytest.raises(UsageError, match="two outputs go to"):
            Plan({source.name: Outputs(snapshot=str(boxes), keypoints=str(boxes))}).check([source])


def test_boxes_of_another_source_are_refused_before_any_frame(tmp_path):
    (tmp_path / "coco").mkdir()
    for number in (139, 632):
        cv2.imwrite(str(tmp_path / "coco" / f"{number:012d}.png"), picture((50, 60)))
    for ids, words in (((1, 2), "image_id 2 of .* is none of the 2 pictures"), ((632, 139), None)):
        boxes = tmp_path / "boxes.json"
        boxes.write_text(json.dumps([{"image_id": each, "bbox": box_of((50, 60))} for each in ids]))
        with dots_estimator() as model:
            refused = pytest.raises(UsageError, match=words) if words else contextlib.nullcontext()
            with refused, Pipeline(FollowedPose(model, BoxesFile(boxes)), [str(tmp_path / "coco")]) as pipeline:
                assert [len(answer.result) for answer in pipeline] == [1, 1]
                assert words is None


@pytest.mark.parametrize("key_every", [1, 2, 3, 4, 7, 100])
@pytest.mark.parametrize("detect_every", [1, 2])
def test_between_key_frames_people_go_on_straight_lines(key_every, detect_every):
    walk = [[(40 + 2 * index, 50), (160, 60)] for index in range(8)]
    images, boxes = [picture(*middles) for middles in walk], [[box_of(middle) for middle in each] for each in walk]
    finder, plain, keypoints = Known(boxes), Collected(), Collected()
    keys = sorted({*range(0, 8, key_every), 7})  # the last frame is one too
    run(images, finder=finder, keypoints=[keypoints], key_every=key_every, detect_every=detect_every)
    assert finder.asked == keys[::detect_every]
    known = Known([boxes[key] for key in keys])
    run([images[key] for key in keys], finder=known, keypoints=[plain], detect_every=detect_every)
    assert [frame.index for frame in keypoints.frames] == list(range(8))
    assert keypoints.ids == [[1, 2]] * 8
    for index, pose in enumerate(keypoints.given):
        after = next(number for number, key in enumerate(keys) if key >= index)
        if keys[after] == index:
            np.testing.assert_array_equal(pose.keypoints_xy, plain.given[after].keypoints_xy)
            assert pose.from_key is None
            continue
        before, early, late = keys[after - 1], plain.given[after - 1], plain.given[after]
        share = (index - before) / (keys[after] - before)
        for name in ("keypoints_xy", "boxes_xywh"):
            line = (1 - share) * getattr(early, name) + share * getattr(late, name)
            np.testing.assert_allclose(getattr(pose, name), line, atol=1e-3)
        np.testing.assert_array_equal(pose.scores, np.minimum(early.scores, late.scores))
        assert (pose.from_key.index, pose.from_key.seconds) == (before, pytest.approx((index - before) / 25))


def test_who_runs_too_fast_to_be_known_again_is_not_shown_in_between():
    """By the next key frame their box overlaps with the last one by less than 0.3."""
    keypoints = Collected()
    run(IMAGES, finder=Known(BOXES), keypoints=[keypoints], key_every=4)
    assert keypoints.ids == [[1, 2], [2], [2], [2], [3, 2], [3, 2], [3, 2], [3, 2]]


@pytest.mark.parametrize(("key_every", "asked"), [("0.08s", [0, 2, 4, 6, 7]), ("auto", None)])
def test_key_frames_by_time_and_as_many_as_keep_up(key_every, asked):
    finder, keypoints = Known(BOXES), Collected()
    run(IMAGES, finder=finder, keypoints=[keypoints], key_every=key_every)
    assert (finder.asked[0], finder.asked[-1]) == (0, 7)
    assert asked in (None, finder.asked)
    for pose, middles in zip(keypoints.given, WALK, strict=True):
        np.testing.assert_allclose(pose.keypoints_xy, [keypoints_of(middle) for middle in middles], atol=6)


def test_steps_are_left_out_between_key_frames():
    report = run(IMAGES, finder=Known(BOXES), key_every=3, overlays=[Collected()])
    counts = {stage: report.timer.latency(stage).count for stage in report.timer.stages}
    # The last frame is made a key frame at the end, when the steps are over.
    assert counts == {"decode": 8, "detect": 3, "prepare": 3, "infer": 3, "keypoints": 8, "draw": 8, "encode": 8}


def test_who_is_in_one_of_two_key_frames_is_not_shown_in_between():
    boxes = [each if index < 4 else each[:1] for index, each in enumerate(BOXES)]
    keypoints = Collected()
    run(IMAGES, finder=Known(boxes), keypoints=[keypoints], key_every=2)
    assert keypoints.ids == [[1, 2], [1, 2], [1, 2], [1], [1], [1], [1], [1]]


def test_nobody_walks_across_a_cut():
    images = [each if index < 5 else 255 - each for index, each in enumerate(IMAGES)]
    finder, keypoints = Known(BOXES), Collected()
    run(images, finder=finder, keypoints=[keypoints], key_every=3)
    assert finder.asked == [0, 3, 5, 7]
    assert [len(ids) == 0 for ids in keypoints.ids] == [index == 4 for index in range(8)]


def test_another_size_is_a_key_frame():
    images = [picture(*WALK[index], size_hw=(120, 200 + 20 * (index > 4))) for index in range(8)]
    finder, keypoints = Known(BOXES), Collected()
    run(images, finder=finder, keypoints=[keypoints], key_every=3, smooth=0.8)
    assert finder.asked == [0, 3, 5, 7]
    assert keypoints.ids == [[1, 2]] * 4 + [[]] + [[1, 2]] * 3
    assert [pose.from_key is not None for pose in keypoints.given] == [
        False,
        True,
        True,
        False,
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("key_every", [1, 2])
@pytest.mark.parametrize("detect_every", [1, 3])
def test_smoothing_steadies_what_is_shown_and_not_where_is_looked(key_every, detect_every):
    plain, smooth = Collected(), Collected()
    run(IMAGES, finder=Known(BOXES), keypoints=[plain], detect_every=detect_every, key_every=key_every)
    run(IMAGES, finder=Known(BOXES), keypoints=[smooth], detect_every=detect_every, key_every=key_every, smooth=0.8)
    assert smooth.ids == plain.ids
    keys = [index for index, pose in enumerate(plain.given) if pose.from_key is None]
    steady = Steady(0.8, threshold=0.3)
    for index in range(8):
        np.testing.assert_array_equal(smooth.given[index].scores, plain.given[index].scores)
        np.testing.assert_array_equal(smooth.given[index].boxes_xywh, plain.given[index].boxes_xywh)
        if index in keys:
            expected = steady.take(plain.frames[index], plain.given[index])
            np.testing.assert_array_equal(smooth.given[index].keypoints_xy, expected.keypoints_xy)
    assert not np.array_equal(smooth.given[-1].keypoints_xy, plain.given[-1].keypoints_xy)


def test_each_source_has_its_own_people():
    """Two that are read in turns are answered as each is alone."""
    back = IMAGES[::-1]

    def answers(*sources):
        by_source = {}
        with dots_estimator() as model, contextlib.ExitStack() as stack:
            opened = [stack.enter_context(source_of(images)) for images in sources]
            for number, source in enumerate(opened):
                source.name = str(len(sources[number]))
            followed = FollowedPose(model, FullFrame())
            with Pipeline(followed, opened, policy="every-frame", smooth=0.8, key_every=3) as pipeline:
                for answer in pipeline:
                    by_source.setdefault(answer.frame.source, []).append(answer.result.keypoints_xy)
        return by_source

    together, alone = answers(IMAGES, back[:7]), answers(IMAGES) | answers(back[:7])
    assert sorted(together) == ["7", "8"]
    for name, each in together.items():
        for one, other in zip(each, alone[name], strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"still": True}, r"still \(--still\) is for segmentation models"),
        ({"key_every": 4, "look_ahead": False}, r"key_every=4 \(--key-every\) .* look ahead"),
        ({"policy": "follow"}, "the policy follow is for segmentation models"),
    ],
)
def test_what_a_pose_model_cannot_do_is_refused(options, words):
    with source_of(IMAGES) as source, dots_estimator() as model, pytest.raises(UsageError, match=words):
        Pipeline(FollowedPose(model, Known(BOXES)), [source], **options)


def test_key_frames_of_a_camera_are_refused_also_beside_a_file():
    with source_of(IMAGES) as file, source_of(IMAGES) as camera, dots_estimator() as model:
        camera.live, camera.name = True, "camera"
        with pytest.raises(UsageError, match="key_every=4"):
            Pipeline(FollowedPose(model, FullFrame()), [camera], key_every=4)
        mixed = Pipeline(FollowedPose(model, FullFrame()), [file, camera], key_every=4)
        with mixed, pytest.raises(UsageError, match="key_every=4"):
            list(mixed)
