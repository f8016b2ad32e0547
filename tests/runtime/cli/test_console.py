import argparse
import logging
import platform
import subprocess
import sys
import threading
from importlib import metadata

import numpy as np
import pytest

from sfpp.runtime.backends.protocol import say
from sfpp.runtime.cli.console import (
    Bars,
    command_parser,
    exit_code_of,
    notes_of,
    positive_int,
    progress_bar,
    report,
    run_command,
    terminal,
)
from sfpp.runtime.errors import MissingDependencyError, SfppError, UsageError


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


def not_loaded():
    try:
        raise ImportError("cv2.abi3.so: failed to map segment from shared object")
    except ImportError as error:
        raise MissingDependencyError("OpenCV", extra="cpu", purpose="preparing images") from error


def no_thread():
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("work", [not_loaded, no_thread])
def test_what_has_no_memory_to_begin_with_says_so(work, capsys):
    assert exit_code_of("sfpp-x", work) == 1
    assert capsys.readouterr().err.startswith("sfpp-x: error: memory ran out; ")


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


def shared_parser():
    parser = command_parser("sfpp-x", description="", epilog="")
    parser.add_argument("model")
    parser.add_argument("--json")
    parser.add_argument("--backend", choices=("openvino", "onnxruntime"))
    return parser


def run_shared(*words, error=None):
    def work(arguments):
        assert set(vars(arguments)) == {"model", "json", "backend"}
        for line in ("a note", "warning: odd", "error: bad; the others go on"):
            notes_of("sfpp-x")(line)
        report("made it")
        print("the result")
        logging.getLogger("sfpp").info("logged")
        say("notified", notes_of("sfpp-x"))
        if error:
            raise error
        return 0

    return run_command("sfpp-x", shared_parser().parse_args(["m.onnx", *words]), work)


def test_quiet_leaves_problems_and_what_was_asked_for(capsys):
    assert run_shared() == 0
    told = capsys.readouterr()
    assert told.out == "made it\nthe result\n"
    assert told.err == "".join(
        f"sfpp-x: {line}\n" for line in ("a note", "warning: odd", "error: bad; the others go on", "notified")
    )
    assert run_shared("-q", error=SfppError("no")) == 1
    told = capsys.readouterr()
    assert told.out == "the result\n"
    assert told.err == "".join(
        f"sfpp-x: {line}\n" for line in ("warning: odd", "error: bad; the others go on", "error: no")
    )
    notes_of("sfpp-x")("the next command is not quiet")
    assert capsys.readouterr().err


def test_a_quiet_command_has_no_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    def work(arguments):
        with progress_bar(total=2) as bar:
            bar.update(2)
        return 0

    for words, shown in ([], True), (["--quiet"], False):
        assert run_command("sfpp-x", shared_parser().parse_args(["m.onnx", *words]), work) == 0
        assert ("2/2" in capsys.readouterr().err) is shown


def test_verbose_tells_versions_what_is_logged_and_where_an_error_arose(capsys):
    assert run_shared("-v", error=SfppError("no")) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"sfpp-x: sfpp-x {metadata.version('sfpp')}"
    assert f"numpy {np.__version__}" in lines[1]
    assert lines[2:7] == [
        *("sfpp-x: a note", "sfpp-x: warning: odd", "sfpp-x: error: bad; the others go on"),
        *("logged", "sfpp-x: notified"),
    ]
    assert lines[7] == "Traceback (most recent call last):"
    assert lines[-1] == "sfpp-x: error: no"


@pytest.mark.parametrize("words", [["--version"], ["--json", "x", "--version", "nonsense"]])
def test_versions_need_nothing_else(words, capsys):
    with pytest.raises(SystemExit) as end:
        shared_parser().parse_args(words)
    assert end.value.code == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"sfpp-x {metadata.version('sfpp')}"
    assert second.startswith(f"python {platform.python_version()}, numpy {np.__version__}")


@pytest.mark.parametrize("parse", ["parse_args", "parse_intermixed_args"])
def test_a_shell_completes_options_choices_and_files(parse, tmp_path, capsys):
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as end:
        getattr(shared_parser(), parse)(["--print-completion", "bash"])
    assert end.value.code == 0
    (tmp_path / "completion.sh").write_text(capsys.readouterr().out)
    (tmp_path / "street.onnx").touch()
    script = "source ./completion.sh; COMP_WORDS=($1); COMP_CWORD=$2; _shtab_sfpp_x; echo ${COMPREPLY[@]}"
    for line, word in (
        ("sfpp-x str", "street.onnx"),
        ("sfpp-x street.onnx --bac", "--backend"),
        ("sfpp-x street.onnx --backend onn", "onnxruntime"),
        ("sfpp-x street.onnx --json str", "street.onnx"),
    ):
        words = ["bash", "-c", script, "bash", line, str(len(line.split()) - 1)]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert (done.stdout.split(), done.stderr) == ([word], ""), line


def test_without_shtab_it_is_said_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit) as end:
        shared_parser().parse_args(["--print-completion", "zsh"])
    assert end.value.code == 1
    assert capsys.readouterr().err == (
        "sfpp-x: error: completion in a shell needs shtab, which is not installed: pip install 'sfpp[completion]'\n"
    )


def test_what_is_printed_commands_no_terminal_and_holds_no_password(capsys):
    def work():
        print("class \x1b]0;owned\x07 r\rx")
        sys.stderr.writelines(["rtsp://u:s3cr3t@host/ ", "\x1b[2J\n"])
        print("\r\x1b[K", end="", file=terminal())  # our own
        return 0

    assert exit_code_of("sfpp-x", work) == 0
    out, err = capsys.readouterr()
    assert out == "class \ufffd]0;owned\ufffd r\ufffdx\n"
    assert err == "rtsp://host/ \ufffd[2J\n\r\x1b[K"


def test_a_parser_repeats_nothing_unsafe(capsys):
    parser = command_parser("sfpp-x", description="", epilog="")
    with pytest.raises(SystemExit):
        parser.parse_args(["--a\x1b[31m", "https://u:s3cr3t@host/?token=s3cr3t"])
    assert capsys.readouterr().err.endswith("unrecognized arguments: --a\ufffd[31m https://host/?token=***\n")


def test_a_bugs_traceback_is_only_text():
    code = """
from sfpp.runtime.cli.console import exit_code_of

def fails():
    raise OSError("\\x1b[31m https:/u:s3cr3t@host/")

exit_code_of("sfpp-x", fails)
"""
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", code], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 1
    assert done.stderr.endswith("OSError: \ufffd[31m https:/host/\n")


def test_a_warning_of_the_cache_is_printed_and_what_others_print_is_not(capsys):
    def work(_):
        logging.getLogger("sfpp").warning("warning: unused", extra={"printed": True})
        logging.getLogger("sfpp").warning("warning: elsewhere", extra={"notified": True})
        return 0

    assert run_command("sfpp-x", command_parser("sfpp-x", description="", epilog="").parse_args(["-q"]), work) == 0
    assert capsys.readouterr().err == "warning: unused\n"


def test_a_command_leaves_the_process_as_it_was(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", print)  # as a program has it that reports its own bugs
    before = sys.stdout, sys.stderr, sys.excepthook
    assert run_shared() == 0
    assert (sys.stdout, sys.stderr, sys.excepthook) == before


def test_so_do_two_in_threads_of_which_the_first_ends_first():
    before = sys.stdout, sys.stderr, sys.excepthook
    second_works, first_is_done = threading.Event(), threading.Event()

    def outlasts():
        second_works.set()
        return int(not first_is_done.wait(60))

    second = threading.Thread(target=exit_code_of, args=("sfpp-y", outlasts))

    def begins():
        second.start()
        return int(not second_works.wait(60))

    assert exit_code_of("sfpp-x", begins) == 0
    first_is_done.set()
    second.join()
    assert (sys.stdout, sys.stderr, sys.excepthook) == before
