"""Observed ranges are kept, and used again only for the same model, frames and settings."""

import numpy as np
import pytest

from sfpp.calibration.int8.histogram import Histogram, remembered
from sfpp.calibration.int8.ranges import threshold


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SFPP_CACHE", str(tmp_path))
    return tmp_path


class Observer:
    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        histogram = Histogram()
        histogram.add(np.random.default_rng(self.calls).standard_normal(1000))
        return {"tensor": histogram}


KEY = {"model": "m", "frames": "f", "tensors": ["tensor"]}


def test_the_second_time_nothing_is_observed():
    observer = Observer()
    first, known = remembered(KEY, observer)
    assert not known
    again, known = remembered(KEY, observer)
    assert known
    assert observer.calls == 1
    for method in ("minmax", "entropy", "percentile"):
        assert threshold(again["tensor"], method) == threshold(first["tensor"], method)
    again["tensor"].add(np.array([100.0]))  # it goes on counting
    assert again["tensor"].values == 1001


@pytest.mark.parametrize("other", [{"model": "n"}, {"frames": "g"}, {"tensors": ["tensor", "more"]}])
def test_what_belongs_to_something_else_is_not_used(other):
    observer = Observer()
    remembered(KEY, observer)
    _, known = remembered({**KEY, **other}, observer)
    assert not known
    assert observer.calls == 2


def test_a_damaged_file_is_not_used(cache):
    observer = Observer()
    remembered(KEY, observer)
    (file,) = cache.rglob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    _, known = remembered(KEY, observer)
    assert not known
    _, known = remembered(KEY, observer)
    assert known


def test_it_can_be_left_off(cache):
    observer = Observer()
    for _ in range(2):
        assert not remembered(KEY, observer, use=False)[1]
    assert not list(cache.rglob("*.npz"))


def test_the_oldest_are_forgotten(cache):
    for number in range(40):
        remembered({**KEY, "model": str(number)}, Observer())
    assert len(list(cache.rglob("*.npz"))) == 32
    assert remembered({**KEY, "model": "39"}, Observer())[1]


def test_a_folder_that_cannot_be_written_costs_nothing(cache, monkeypatch):
    (cache / "file").write_text("")
    monkeypatch.setenv("SFPP_CACHE", str(cache / "file"))
    assert not remembered(KEY, Observer())[1]
