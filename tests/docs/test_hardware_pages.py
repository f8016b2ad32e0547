"""What the pages on hardware may not say again: each of these has cost somebody a board's speed or an evening."""

import re

import pytest

from sfpp.runtime.tensorrt.facts import boards, jetpacks, sources
from tests.docs.test_docs import ROOT, shell_lines

JETSON, DESKTOP, TENSORRT = (ROOT / f"docs/{name}.md" for name in ("jetson", "desktop-gpu", "tensorrt"))


def text_of(page):
    return " ".join(page.read_text(encoding="utf-8").split())


def test_no_example_sets_a_power_mode_by_a_number():
    """0 is the fastest mode of one board, and 15 W on another."""
    modes = {board.modes.get("0") for board in boards()}
    assert {"MAXN", "15W"} <= modes
    lines = [each.text for each in shell_lines(JETSON) if "nvpmodel -m" in each.text]
    assert lines
    assert not [line for line in lines if re.search(r"nvpmodel -m *\d", line)]


def test_tensorrt_11_is_never_installed_on_a_jetson_without_its_lowest_version():
    text = JETSON.read_text(encoding="utf-8")
    assert re.findall(r"pip install [^`]*tensorrt-cu13[^`]*", text) == ["pip install 'tensorrt-cu13>=11.4.1'"]


def test_the_flag_that_keeps_nothing_by_itself_is_not_advised():
    assert not [each for each in shell_lines(JETSON) if "precisionConstraints" in each.text]


def test_images_of_jetpack_7_are_those_of_the_sbsa_build():
    assert "-igpu" in text_of(JETSON)
    for path in (ROOT / "docker").glob("*.Dockerfile"):
        froms = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith(("FROM", "ARG"))]
        assert not [line for line in froms if "igpu" in line]


@pytest.mark.parametrize("mark", ["[u]", "[m]"])
def test_what_others_say_is_marked_on_the_page(mark):
    """And the legend says what the marks mean."""
    text = JETSON.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert any(mark in line for line in rows)
    assert f"{mark} " in text.split("<!-- end -->")[1]


def test_every_source_is_on_a_page_that_can_be_read():
    text = TENSORRT.read_text(encoding="utf-8")
    assert all(each.link in text for each in sources().values())
    assert all(f"| {each.name} |" in JETSON.read_text(encoding="utf-8") for each in jetpacks())
