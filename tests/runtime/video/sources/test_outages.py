import statistics

import pytest

from sfpp.runtime.video.sources.link import Outages, pause_s


def test_pauses_double_up_to_a_quarter_of_a_minute():
    middles = [statistics.mean(pause_s(tries) for _ in range(400)) for tries in range(8)]
    assert middles == pytest.approx([0.5, 1, 2, 4, 8, 15, 15, 15], rel=0.05)
    assert all(0.4 <= pause_s(0) <= 0.6 for _ in range(100))
    assert len({pause_s(0) for _ in range(100)}) > 50  # many sources do not come back all at once
    assert pause_s(10**6) < 20


def test_each_outage_is_told_once():
    told = []
    outages = Outages(lambda *event: told.append(event), tries=None, now_s=100.0)
    outages.picture_came(101.0)
    outages.begin("gone")
    outages.begin("still gone")
    assert [outages.next_pause_s() is not None for _ in range(100)] == [True] * 100
    outages.picture_came(111.5)
    outages.picture_came(112.0)
    assert told == [("lost", "gone; connecting again"), ("back", "after 10.5 s, at try 100")]
    assert outages.next_pause_s() < 0.7  # begins anew


@pytest.mark.parametrize(
    ("tries", "words"), [(0, "gone"), (1, "gave up after 1 try: gone"), (2, "gave up after 2 tries: gone")]
)
def test_so_many_tries_and_no_more(tries, words):
    told = []
    outages = Outages(lambda *event: told.append(event), tries=tries, now_s=0.0)
    outages.begin("gone")
    assert [outages.next_pause_s() is None for _ in range(tries + 1)] == [False] * tries + [True]
    assert outages.give_up("gone") == words
    assert told == [("lost", "gone; connecting again" if tries else "gone"), ("gave-up", words)]
