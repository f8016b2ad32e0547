import pytest

from sfpp.runtime.errors import UsageError
from sfpp.runtime.motion.options import KeyEvery, KeyFrames, Motion, key_every_from
from tests.runtime.video.clips import frame


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (4, KeyEvery(frames=4)),
        ("4", KeyEvery(frames=4)),
        ("0.25s", KeyEvery(seconds=0.25)),
        (".5 s", KeyEvery(seconds=0.5)),
        ("250ms", KeyEvery(seconds=0.25)),
        ("AUTO", KeyEvery()),
        (KeyEvery(3), KeyEvery(3)),
    ],
)
def test_ways_to_say_how_often(given, expected):
    assert key_every_from(given) == expected
    assert key_every_from(str(expected)) == expected


@pytest.mark.parametrize(
    "given", ["0", 0, "-1", "4.5", 2.5, "0s", "1m", "nan", "infs", "", "s", "4 frames", "1e3s", True]
)
def test_what_cannot_be_meant_is_refused(given):
    with pytest.raises(UsageError, match=r"expected a number of frames such as 4, a time such as 0\.25s, or auto"):
        key_every_from(given)


def test_no_frame_at_all_is_named_in_the_error():
    with pytest.raises(UsageError, match="key frames every 0 were asked for"):
        key_every_from(0)


@pytest.mark.parametrize("amount", [-0.1, 1.0, 3.0, float("nan"), "0.5"])
def test_amounts_that_cannot_be_meant(amount):
    with pytest.raises(UsageError, match=rf"smoothing by {amount!r} was asked .* a number, 0 \(none\) to below 1"):
        Motion(smooth=amount)


def test_what_is_on_by_default():
    assert not Motion()
    assert not Motion(smooth=0.0)
    assert Motion(smooth=0.3).mix == 0.3
    assert Motion(KeyEvery(4)).mix == 0.8
    assert Motion(KeyEvery(4), smooth=0.0).mix == 0.0
    assert Motion(still=True).mix == 0.0
    assert Motion(still=True)


def keys(every, times, *, ahead=True, begins=(0,), infer_s=None):
    """The indices of the key frames."""
    chosen = KeyFrames(key_every_from(every), ahead=ahead)
    return [
        index
        for index, time_s in enumerate(times)
        if chosen.is_key(frame(index, time_s=time_s), begins=index in begins, infer_s=infer_s)
    ]


STEADY = [index / 25 for index in range(13)]


def test_every_so_many_frames_and_anew_from_a_cut():
    assert keys(1, STEADY) == list(range(13))
    assert keys(4, STEADY) == [0, 4, 8, 12]
    assert keys(4, STEADY, begins=(0, 6)) == [0, 4, 6, 10]


def test_every_so_much_time_whatever_the_rate_is():
    assert keys("0.2s", STEADY) == [0, 5, 10]
    uneven = [0.0, 0.01, 0.02, 0.3, 0.31, 0.4, 0.52, 0.9]
    assert keys("0.2s", uneven) == [0, 3, 6, 7]


def test_frames_far_apart_or_going_back_are_all_seen():
    assert keys(4, [0.0, 1.0, 2.0, 2.1, 2.2, 2.3, 2.4]) == [0, 1, 2, 6]
    assert keys(4, [0.0, 0.1, 0.05, 0.1, 0.2]) == [0, 2]


@pytest.mark.parametrize(
    ("infer_s", "ahead", "expected"),
    [(0.01, True, 1), (0.05, True, 2), (0.1, True, 3), (0.2, False, 3), (5.0, True, 12), (5.0, False, 3)],
)
def test_auto_takes_what_keeps_up_as_long_as_labels_stay_good(infer_s, ahead, expected):
    times = [index / 25 for index in range(100)]
    found = keys("auto", times, ahead=ahead, infer_s=infer_s)
    assert found[-1] - found[-2] == expected


def test_no_more_frames_wait_than_memory_should_hold():
    times = [index / 100 for index in range(100)]
    assert keys(50, times) == keys("0.5s", times) == [0, 32, 64, 96]
    assert keys(50, times, ahead=False) == [0, 50]


def test_auto_sees_every_frame_until_it_knows():
    assert keys("auto", STEADY) == list(range(13))
