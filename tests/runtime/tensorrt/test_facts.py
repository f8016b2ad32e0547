"""Every fact has a source, and every source is there for a fact."""

import re
from typing import get_args

import pytest

from sfpp.runtime.tensorrt.facts import Mark, boards, facts, gpus, jetpacks, sources, trtexec_path

# What names a row needs no source, and what sfpp promises is its own word.
PLAIN = ("name", "title", "support", "known_from")


def rows():
    """Every row of the file with its section."""
    found = facts()
    for section in ("jetpacks", "boards", "gpus"):
        yield from ((f"{section}: {row['name']}", row) for row in found[section])
    yield from ((f"tensorrt: {key}", row) for key, row in found["tensorrt"].items())
    yield "trtexec", found["trtexec"]


ROWS = dict(rows())


@pytest.mark.parametrize("name", ROWS)
def test_every_field_says_where_it_is_known_from(name):
    row = ROWS[name]
    fields = set(row) - set(PLAIN)
    assert {each for names in row["known_from"].values() for each in names.split()} == fields
    assert set(row["known_from"]) <= set(sources())


def test_every_source_is_used_has_a_mark_and_can_be_looked_up():
    used = {key for row in ROWS.values() for key in row["known_from"]}
    assert used == set(sources())
    for key, source in sources().items():
        assert source.mark in get_args(Mark), key
        assert source.what
        assert source.link.startswith(("https://", "http://")) or source.mark in ("user report", "memory"), key


def test_rows_are_told_apart():
    for section in (jetpacks(), boards(), gpus()):
        names = [each.name for each in section]
        assert len(set(names)) == len(names) > 3
    linux = [version for each in jetpacks() for version in each.linux.split()]
    assert len(set(linux)) == len(linux)
    assert all(re.fullmatch(r"\d+(\.\d+)+", version) for version in linux)


def test_peaks_are_dense():
    """NVIDIA's headline figures of Orin are of sparse weights, twice as many."""
    for each in gpus():
        assert each.int8_tops == pytest.approx(2 * each.fp16_tflops, rel=0.01)
    orin = next(each for each in gpus() if each.name.startswith("AGX Orin"))
    assert orin.int8_tops == 170 / 2


@pytest.mark.parametrize(
    ("version", "path"),
    [
        ("8.6.2", "/usr/src/tensorrt/bin/trtexec"),
        ("10.14.1.48", "/usr/src/tensorrt/bin/trtexec"),
        ("10.15.1", "trtexec"),
        ("11.4.1", "trtexec"),
    ],
)
def test_trtexec_is_in_the_path_from_10_15_on(version, path):
    assert trtexec_path(version) == path
