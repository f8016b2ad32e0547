import math
from dataclasses import replace

import numpy as np
import pytest

from sfpp.runtime import KeypointSpec, Pose, UsageError
from sfpp.runtime.motion.options import KeyEvery, Motion
from sfpp.runtime.people.motion import Lines, Steady, Succession, between, check_motion
from sfpp.runtime.video.frame import Frame

SPEC = KeypointSpec(("head", "hand", "foot"))
PICTURE = np.zeros((4, 6, 3), np.uint8)


def frame_at(time_s, index=0, picture=PICTURE):
    return Frame(index, picture, time_s, f"f{index}")


def pose_of(people, *, box_wh=(30, 40)):
    """A pose from (x, y, score) of each joint, by id."""
    values = np.array(list(people.values()), np.float32).reshape(-1, 3, 3)
    boxes = np.array([[*joints[0][:2], *box_wh] for joints in values], np.float32).reshape(-1, 4)
    ids = np.array(list(people), np.int64)
    return Pose(values[..., :2], values[..., 2], boxes, SPEC, ids)


def standing(x, y, score=0.9):
    return [(x, y, score), (x + 5, y + 9, score), (x - 3, y + 20, score)]


class SlowOneEuro:
    """One joint of one person, number by number, as the paper's first algorithm has it."""

    def __init__(self, min_cutoff_hz):
        self.min_cutoff_hz = min_cutoff_hz
        self.last = None

    def step(self, x, y, seen, step_s, diagonal):
        if not seen:
            self.last = None
            return x, y
        if self.last is None:
            self.last = x, y, 0.0, 0.0
            return x, y
        last_x, last_y, last_u, last_v = self.last
        share = self.share(1.0, step_s)
        u = share * (x - last_x) / step_s + (1 - share) * last_u
        v = share * (y - last_y) / step_s + (1 - share) * last_v
        share = self.share(self.min_cutoff_hz + 20 * math.hypot(u, v) / diagonal, step_s)
        self.last = share * x + (1 - share) * last_x, share * y + (1 - share) * last_y, u, v
        return self.last[:2]

    @staticmethod
    def share(cutoff_hz, step_s):
        time_constant_s = 1 / (2 * math.pi * cutoff_hz)
        return 1 / (1 + time_constant_s / step_s)


def slowly(frames, poses, *, min_cutoff_hz, threshold):
    """The keypoints of each frame, filtered one joint after the other."""
    filters, last, made = {}, None, []
    for frame, pose in zip(frames, poses, strict=True):
        step_s = None if last is None else frame.time_s - last.time_s
        if step_s is None or not 0 < step_s <= 0.5 or frame.image_bgr.shape != last.image_bgr.shape:
            filters = {}
        filters = {key: each for key, each in filters.items() if key[0] in pose.ids}
        last, xy = frame, np.array(pose.keypoints_xy)
        for row, identity in enumerate(pose.ids.tolist()):
            diagonal = math.hypot(*pose.boxes_xywh[row, 2:].tolist())
            for joint in range(3):
                one = filters.setdefault((identity, joint), SlowOneEuro(min_cutoff_hz))
                seen = pose.scores[row, joint] >= threshold
                xy[row, joint] = one.step(*pose.keypoints_xy[row, joint].tolist(), seen, step_s, diagonal)
        made.append(xy)
    return made


@pytest.mark.parametrize(("smooth", "min_cutoff_hz"), [(0.8, 2.0), (0.5, 8.0), (0.9, 8 / 9)])
def test_keypoints_are_filtered_as_by_a_slow_one(smooth, min_cutoff_hz):
    """People come and go, joints vanish, the rate varies, the time stops, goes back and jumps, the size changes."""
    rng = np.random.default_rng(5)
    steps_s = rng.choice([1 / 30, 1 / 25, 0.1, 0.49, 0.0, -0.2, 0.6], 120, p=[0.5, 0.2, 0.1, 0.1, 0.04, 0.03, 0.03])
    pictures = [PICTURE if index % 50 < 40 else PICTURE[:2] for index in range(120)]
    frames = [
        frame_at(time_s, index, picture)
        for index, (time_s, picture) in enumerate(zip(np.cumsum(steps_s).tolist(), pictures, strict=True))
    ]
    walks = np.cumsum(rng.normal(0, 6, (120, 4, 3, 2)), axis=0)
    poses = []
    for walk in walks:
        present = rng.permutation(np.flatnonzero(rng.random(4) < 0.9))
        scores = np.where(rng.random((len(present), 3)) < 0.85, 0.6, 0.2).astype(np.float32)
        boxes = rng.uniform(20, 90, (len(present), 4)).astype(np.float32)
        poses.append(Pose(walk[present].astype(np.float32), scores, boxes, SPEC, 3 + present.astype(np.int64)))
    steady = Steady(smooth, threshold=0.3)
    made = [steady.take(frame, pose) for frame, pose in zip(frames, poses, strict=True)]
    expected = slowly(frames, poses, min_cutoff_hz=min_cutoff_hz, threshold=0.3)
    for one, pose, xy in zip(made, poses, expected, strict=True):
        np.testing.assert_allclose(one.keypoints_xy, xy, atol=1e-3)
        assert one.keypoints_xy.dtype == np.float32
        assert one.scores is pose.scores
        assert one.ids is pose.ids
        assert one.boxes_xywh is pose.boxes_xywh
    assert max(np.abs(one.keypoints_xy - pose.keypoints_xy).max() for one, pose in zip(made, poses, strict=True)) > 3


def track(people_x, *, size, rate=25, noise=0.01, smooth=0.8):
    """What is found of somebody ``size`` pixels large, and what is made of it; places are in sizes."""
    rng = np.random.default_rng(1)
    true = np.array([[(x, 0.0), (x + 0.1, 0.5), (x, 1.0)] for x in people_x])
    found = true + rng.normal(0, noise, true.shape)
    steady, made = Steady(smooth, threshold=0.3), []
    for index, xy in enumerate(found):
        box = np.array([[0, 0, 0.6 * size, 0.8 * size]], np.float32)
        pose = Pose((size * xy[None]).astype(np.float32), np.full((1, 3), 0.9, np.float32), box, SPEC, np.array([7]))
        made.append(steady.take(frame_at(index / rate, index), pose).keypoints_xy[0] / size)
    return true, found, np.array(made)


def jitter(xy):
    return np.abs(np.diff(xy, 2, axis=0)).mean()


@pytest.mark.parametrize("size", [40, 1000])
def test_who_stands_no_longer_trembles_near_or_far(size):
    true, found, made = track(np.zeros(100), size=size)
    assert jitter(made) < 0.45 * jitter(found)
    assert np.abs(made - true)[10:].mean() < 0.8 * np.abs(found - true).mean()
    np.testing.assert_allclose(made, track(np.zeros(100), size=100)[2], atol=1e-5)


def test_who_begins_to_walk_is_hardly_late():
    """From standing to one diagonal a second; with a fixed cutoff of 2 Hz the lag is 1 / (4 pi) of a diagonal."""
    walk = np.concatenate([np.zeros(50), np.arange(100) / 25])
    true, _, made = track(walk, size=100, noise=0)
    lag = (true - made)[:, 0, 0]
    assert 0 < lag.max() < 0.04
    assert lag[-1] < 0.01
    true, found, made = track(walk, size=100)
    assert np.abs(made - true)[60:].mean() < 1.1 * np.abs(found - true).mean()


def test_without_smoothing_nothing_changes():
    pose = pose_of({1: standing(10, 20)})
    steady = Steady(0.0, threshold=0.3)
    for index in range(3):
        assert steady.take(frame_at(index / 25), pose) is pose


def test_less_smoothing_is_nearer_to_none():
    changes = []
    for smooth in (0.01, 0.2, 0.5, 0.8, 0.95):
        _, found, made = track(np.zeros(50), size=100, smooth=smooth)
        changes.append(np.abs(made - found).mean())
    assert changes == sorted(changes)
    assert changes[0] < 0.02 * changes[-1]


def test_frames_without_anybody():
    steady = Steady(0.8, threshold=0.3)
    for index in range(3):
        assert steady.take(frame_at(index / 25), pose_of({})).keypoints_xy.shape == (0, 3, 2)


def test_which_frames_go_on():
    succession, other = Succession(), PICTURE[:3]
    told = [(1.0, PICTURE), (1.25, PICTURE), (1.25, PICTURE), (1.75, PICTURE), (2.5, PICTURE), (2.0, PICTURE)]
    told += [(2.25, other), (2.5, other)]
    steps = [succession.step_s(frame_at(time_s, picture=picture)) for time_s, picture in told]
    assert steps == [None, 0.25, 0.0, 0.5, None, None, None, 0.25]


EARLY = pose_of({4: standing(10, 20), 2: standing(50, 20, 0.8), 9: standing(90, 20)})
LATE = pose_of({9: standing(90, 60, 0.5), 5: standing(0, 0), 4: standing(30, 20)})


def test_keypoints_move_on_straight_lines_between_those_who_are_in_both():
    pose = between(EARLY, LATE, 0.25)
    assert pose.ids.tolist() == [4, 9]  # in the order of the early one
    expected = pose_of({4: standing(15, 20), 9: standing(90, 30, 0.5)})
    np.testing.assert_allclose(pose.keypoints_xy, expected.keypoints_xy)
    np.testing.assert_allclose(pose.boxes_xywh, expected.boxes_xywh)
    np.testing.assert_array_equal(pose.scores, expected.scores)
    assert {each.dtype for each in (pose.keypoints_xy, pose.scores, pose.boxes_xywh)} == {np.dtype(np.float32)}
    for share, end in ((0, EARLY), (1, LATE)):
        rows = [end.ids.tolist().index(identity) for identity in (4, 9)]
        np.testing.assert_allclose(between(EARLY, LATE, share).keypoints_xy, end.keypoints_xy[rows])
    assert len(between(EARLY, pose_of({}), 0.5)) == len(between(pose_of({}), LATE, 0.5)) == 0


def given(lines, *moments):
    """What comes out for frames of (time, size in rows, pose or None); and the frames."""
    frames = [frame_at(time_s, index, PICTURE[:rows]) for index, (time_s, rows, _) in enumerate(moments)]
    done, succession = [], Succession()
    for frame, (_, _, pose) in zip(frames, moments, strict=True):
        begins = succession.step_s(frame) is None
        done += lines.wait(frame) or () if pose is None else lines.key(frame, pose, begins=begins)
    return frames, done


def left_sides(done):
    return [pose.keypoints_xy[:, 0, 0].tolist() for _, pose in done]


def test_frames_wait_for_the_next_key_frame_and_go_by_their_times():
    lines, near = Lines(0.3), pose_of({1: standing(10, 0)})
    frames, done = given(lines, (1.0, 4, near), (1.1, 4, None), (1.3, 4, None), (1.5, 4, pose_of({1: standing(20, 0)})))
    assert [frame for frame, _ in done] == frames
    np.testing.assert_allclose(left_sides(done), [[10], [12], [16], [20]])
    keys = [pose.from_key for _, pose in done]
    assert [key and key.index for key in keys] == [None, 0, 0, None]
    assert [key.seconds for key in keys[1:3]] == pytest.approx([0.1, 0.3])
    assert keys[1].to_record() == done[1][1].to_record()["carried"] == {"from": 0, "seconds": 0.1}
    assert "carried" not in done[3][1].to_record()


def test_pictures_without_times_are_counted():
    late = pose_of({1: standing(16, 0)})
    _, done = given(Lines(0.3), (0, 4, pose_of({1: standing(10, 0)})), (0, 4, None), (0, 4, None), (0, 4, late))
    np.testing.assert_allclose(left_sides(done), [[10], [12], [14], [16]])


@pytest.mark.parametrize(("time_s", "rows"), [(0.7, 4), (0.2, 3), (0.05, 4)])
def test_nothing_is_invented_towards_another_beginning(time_s, rows):
    """After a gap, at another size, and where the time goes back."""
    pose = pose_of({1: standing(10, 0)})
    frames, done = given(Lines(0.3), (0, 4, pose), (0.1, 4, None), (time_s, rows, pose))
    assert [frame for frame, _ in done] == frames
    assert [len(each) for _, each in done] == [1, 0, 1]
    assert done[1][1].from_key.index == 0


def test_a_joint_that_is_unsure_at_one_end_is_unsure_in_between():
    early, late = standing(10, 0), standing(20, 0)
    early[0], late[1] = (*early[0][:2], 0.1), (*late[1][:2], 0.2)
    moments = (0, 4, pose_of({1: early})), (0.1, 4, None), (0.2, 4, pose_of({1: late}))
    _, done = given(Lines(0.3), *moments)
    assert done[1][1].above(0.3).tolist() == [[False, False, True]]
    late[2] = (*late[2][:2], 0.29)
    _, done = given(Lines(0.3), *moments[:2], (0.2, 4, pose_of({1: late})))
    assert len(done[1][1]) == 0  # of whom nothing is sure


def test_the_last_frame_is_taken_to_be_a_key_frame():
    lines, pose = Lines(0.3), pose_of({1: standing(10, 0)})
    assert lines.take_last() is None
    frames, _ = given(lines, (0, 4, pose), (0.1, 4, None), (0.2, 4, None))
    assert lines.take_last() is frames[2]
    done = list(lines.key(frames[2], replace(pose, keypoints_xy=pose.keypoints_xy + 4), begins=False))
    assert [frame for frame, _ in done] == frames[1:]
    np.testing.assert_allclose(left_sides(done), [[12], [14]])
    assert lines.take_last() is None


@pytest.mark.parametrize(
    ("motion", "waits", "words"),
    [
        (Motion(still=True), True, r"still \(--still\) is for segmentation models.*detect_every=5"),
        (Motion(KeyEvery(4)), False, r"key_every=4 \(--key-every\) .*needs a file.*detect_every=5.*every=2"),
        (Motion(KeyEvery(seconds=0.2)), False, r"key_every=0.2s"),
        (Motion(KeyEvery()), False, r"key_every=auto"),
        (Motion(KeyEvery(4), 0.8), True, None),
        (Motion(smooth=0.8), False, None),
    ],
)
def test_what_keypoints_cannot_do_is_refused(motion, waits, words):
    if words is None:
        check_motion(motion, waits=waits)
    else:
        with pytest.raises(UsageError, match=words):
            check_motion(motion, waits=waits)
