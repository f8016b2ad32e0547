"""What the page on machines says: what was recorded, and for which versions."""

import json

import pytest

from tests.machines.native import floors, tomllib, wanted
from tests.machines.results import PAGE, RESULTS, ROOT, counts, row_text, table

ROWS = json.loads(RESULTS.read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_page_holds_the_recorded_table():
    assert table(ROWS) in PAGE.read_text(encoding="utf-8")
    assert set(ROWS) <= {"newest", "oldest", "arm64", "arm64-all"}


@pytest.mark.skipif("oldest" not in ROWS, reason="no run with the oldest libraries is recorded")
def test_the_oldest_run_was_of_the_lowest_versions_that_are_allowed():
    """If this fails, a lowest version was changed: `make test-oldest RECORD=1`."""
    versions = {name: each for name, each in ROWS["oldest"]["versions"].items() if name != "Python"}
    lowest = floors(PROJECT)
    assert {"numpy", "onnxruntime", "av", "opencv-python-headless"} <= set(versions)
    assert not {name: each for name, each in versions.items() if f"{each}.".find(f"{lowest[name]}.") != 0}


def test_each_library_has_one_lowest_version():
    words = [*PROJECT["dependencies"], *(each for extra in PROJECT["optional-dependencies"].values() for each in extra)]
    pairs = {tuple(word.split(">=")) for word in words if ">=" in word and ";" not in word}
    assert len({name for name, _ in pairs}) == len(pairs)


@pytest.mark.parametrize("name", ["newest", "oldest"])
def test_what_is_installed(name):
    try:
        python, libraries = wanted(name)
    except SystemExit as error:
        pytest.skip(str(error))
    assert python.name.startswith("python3.")
    assert all(("==" in each) == (name == "oldest") for each in libraries)
    assert {each.partition("==")[0] for each in libraries} >= {"numpy", "av", "onnx", "pytest"}


def test_counts_of_a_run(tmp_path):
    path = tmp_path / "ran.xml"
    path.write_text('<testsuites><testsuite tests="10" skipped="3" failures="2" errors="1"/></testsuites>')
    assert counts(path) == {"passed": 4, "skipped": 3, "failed": 3}
    path.write_text("<testsuites/>")
    with pytest.raises(ValueError, match="has no testsuite"):
        counts(path)


def test_a_row():
    row = {"machine": "x", "versions": {"Python": "3.12", "numpy": "2"}, "passed": 5, "skipped": 1, "failed": 0}
    text = row_text("newest", {**row, "date": "2026-01-02"})
    assert text == "| `test-newest` | x | Python 3.12, numpy 2 | 5 | 1 | 0 | 2026-01-02 |\n"
