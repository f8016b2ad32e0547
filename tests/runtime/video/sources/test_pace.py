import pytest

from sfpp.runtime.video.sources.link import StampPace


class Clock:
    now_s = 1000.0

    def __call__(self):
        return self.now_s


def test_pictures_are_due_by_their_stamps():
    clock = Clock()
    pace = StampPace(slack_s=0.1, clock=clock)
    assert pace.delay_s(50.0) == 0
    clock.now_s += 0.01
    assert pace.delay_s(50.04) == pytest.approx(0.03)
    clock.now_s += 0.10  # late, but within the slack: it is caught up with
    assert pace.delay_s(50.08) == 0
    assert pace.delay_s(50.12) == pytest.approx(0.01)


def test_what_was_missed_is_not_caught_up_with():
    clock = Clock()
    pace = StampPace(slack_s=0.1, clock=clock)
    pace.delay_s(0.0)
    clock.now_s += 5.0
    assert pace.delay_s(0.04) == 0
    assert pace.delay_s(0.08) == pytest.approx(0.04)


@pytest.mark.parametrize("stamp_s", [1e6, -1e6])
def test_a_stream_whose_stamps_jump_begins_anew(stamp_s):
    clock = Clock()
    pace = StampPace(slack_s=0.1, jump_s=10.0, clock=clock)
    pace.delay_s(0.0)
    assert pace.delay_s(stamp_s) == 0
    assert pace.delay_s(stamp_s + 0.04) == pytest.approx(0.04)
