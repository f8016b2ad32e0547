"""What the live benchmark says of its figures."""

import dataclasses
import subprocess

import pytest

from benchmarks.live.crash import Crash
from benchmarks.live.freshness import Freshness
from benchmarks.live.memory import Memory
from benchmarks.live.parts import Resources
from benchmarks.live.reconnecting import Reconnecting
from benchmarks.live.viewers import Pair, Viewers
from sfpp.runtime.files import python_code


def test_growth_is_the_slope_of_what_comes_after_the_first_thousand_frames():
    grows = Memory(5000, 500, tuple(100 + 0.5 * index for index in range(10)), threads=3, handles=7)
    assert grows.growth_mb == pytest.approx(10)  # 0.5 MB every 500 frames
    settles = dataclasses.replace(grows, memory_mb=(10.0, *[200.0] * 9))
    assert settles.growth_mb == pytest.approx(0, abs=1e-9)
    assert "200 MB after 1000, 200 MB at the end, 200 to 200 MB" in settles.sentence()


def test_what_is_lost_is_what_was_answered_and_is_not_in_the_video():
    assert "killed 2 times" in Crash((6.0, 7.0), (5.9, 6.5)).sentence()
    assert "the last 0.10 to 0.50 s" in Crash((6.0, 7.0), (5.9, 6.5)).sentence()


def test_pages_are_judged_by_the_median_of_the_rounds_ratios():
    rounds = tuple(Pair(alone, watched, 1) for alone, watched in ((20, 19), (10, 5), (40, 38)))
    assert "95% of the 20.0 frames per second" in Viewers(50, rounds, rounds, rounds).sentence()


def test_the_other_sentences_have_their_figures():
    held = Resources(memory_mb=100.4, threads=9, handles=12)
    after = dataclasses.replace(held, threads=10)
    told = Reconnecting(20, 19, 0.5, 2.0, held, after).sentence()
    assert told.startswith("19 of 20 disconnects recovered, 0.5 s after the server was back (longest 2.0 s)")
    assert "threads 9 and 10, handles 12 and 12, memory 100 and 100 MB" in told
    assert "at an age of 1.05 inference times (median)" in Freshness(200, 150, 9, 1.05, 1.1, 1.2, 2.0).sentence()


def test_memory_that_is_held_is_seen():
    # In a process of its own: what other tests have left behind may be freed at any moment.
    program = (
        "import numpy as np\n"
        "from benchmarks.live.parts import resources\n"
        "before = resources()\n"
        "held = np.ones(40_000_000, np.uint8)\n"
        "print(resources().memory_mb - before.memory_mb)\n"
    )
    done = subprocess.run(**python_code(program), check=True, capture_output=True)
    assert float(done.stdout) == pytest.approx(40, abs=5)
