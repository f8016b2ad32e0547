import argparse
import sys

import pytest

from sfpp.runtime.cli.console import Bars, exit_code_of, notes_of, positive_int, progress_bar
from sfpp.runtime.errors import SfppError, UsageError


def failing(error):
    def work():
        raise error

    return work


def test_a_foreseen_failure_is_one_line(capsys):
    assert exit_code_of("sfpp-x", failing(UsageError("first\nsecond"))) == 2
    assert capsys.readouterr().err == "sfpp-x: error: first second\n"


def test_memory_that_ran_out_is_one_line(capsys):
    assert exit_code_of("sfpp-x", failing(MemoryError("std::bad_alloc"))) == 1
    assert capsys.readouterr().err.startswith("sfpp-x: error: memory ran out; close other programs, ")


def test_names_within_a_foreign_file_cannot_command_the_terminal(capsys):
    assert exit_code_of("sfpp-x", failing(SfppError("key \x1b]0;owned\x07\x1b[2J 'a'"))) == 1
    told = capsys.readouterr().err
    assert "\x1b" not in told
    assert "\x07" not in told
    assert told.startswith("sfpp-x: error: key \ufffd]0;owned")


def test_bytes_of_a_name_that_are_no_text_stay_visible(capsys):
    exit_code_of("sfpp-x", failing(SfppError("caf\udce9.onnx is not a file")))
    assert capsys.readouterr().err == "sfpp-x: error: caf\\udce9.onnx is not a file\n"


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "x", "2147483648", "9" * 5000])
def test_what_is_no_count(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number from 1 to 2147483647"):
        positive_int(text)


def test_counts():
    assert [positive_int(text) for text in ("1", "2147483647")] == [1, 2147483647]


def test_notes_go_to_stderr_behind_the_commands_name(capsys):
    notes_of("sfpp-x")("something is done")
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "sfpp-x: something is done\n")


def test_a_bar_is_shown_only_to_somebody_who_looks(monkeypatch, capsys):
    with progress_bar(total=2) as bar:
        bar.update(1)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for hidden in (True, False):
        with progress_bar(total=2, hidden=hidden) as bar:
            bar.update(2)
        assert ("2/2" in capsys.readouterr().err) is not hidden
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with progress_bar(total=2) as bar:
        assert bar is None


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
    monkeypatch.setattr("sfpp.runtime.cli.console._PATIENCE_S", 0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Bars("x", unit="frame") as bars:
        bars("measuring", 2, 4)
        bars("measuring", 4, 4)
        bars.say("done")
    shown = capsys.readouterr().err
    assert "measuring" in shown
    assert "/4" in shown
    assert shown.endswith("x: done\n")
