"""Lines and bars of a command at work."""

import sys

import pytest

from sfpp.runtime.cli.progress import Bars


def test_lines_begin_with_the_command(capsys):
    with Bars("sfpp-engine") as bars:
        bars.say("building")
    Bars().say("plain")
    assert capsys.readouterr().err == "sfpp-engine: building\nplain\n"


def test_off_a_terminal_and_without_tqdm_there_is_no_bar(capsys, monkeypatch):
    with Bars() as bars:
        for done in range(4):
            bars("measuring", done, 3)
        bars("writing", 1, 2)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with Bars() as bars:
        bars("measuring", 1, 3)
    assert capsys.readouterr().err == ""


def test_a_bar_counts_what_is_done_and_gives_way_to_a_line(capsys, monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr("sfpp.runtime.cli.progress._PATIENCE_S", 0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Bars("x", unit="frame") as bars:
        bars("measuring", 2, 4)
        bars("measuring", 4, 4)
        bars.say("done")
    shown = capsys.readouterr().err
    assert "measuring" in shown
    assert "/4" in shown
    assert shown.endswith("x: done\n")
