"""Signals are raised in processes of their own: what else has put a handler into this one may end it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sfpp.runtime.cli import stopping
from sfpp.runtime.cli.stopping import Stopped, listening, stop_on_signals


def run_alone(call):
    """Make the call, of a function of this file, in a process of its own."""
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", f"from tests.runtime.cli import test_stopping as tests\ntests.{call}"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_interrupts(number):
    run_alone(f"notes_one_and_is_interrupted_by_two({int(number)})")


def notes_one_and_is_interrupted_by_two(number):
    before = signal.getsignal(number)
    with listening("sfpp-test"), stop_on_signals() as stop:
        assert not stop()
        signal.raise_signal(number)
        assert stop()
        assert stop.signal_number == number
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        signal.raise_signal(number)  # by now the files are being completed
    assert signal.getsignal(number) is before


def test_signals_do_not_tear_what_is_being_closed():
    run_alone("closes_untorn()")


def closes_untorn():
    with listening("sfpp-test"), stop_on_signals() as stop:
        with stop.stops(lambda: None):
            pass
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
        assert stop()


def test_other_threads_go_without():
    seen = []

    def work():
        with stop_on_signals() as stop:
            seen.append(stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


COMMAND = """
import ctypes, os, signal, sys, threading, time
from sfpp.runtime.cli import stopping
from sfpp.runtime.cli.console import exit_code_of
from sfpp.runtime.scratch import make_folder

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # where the tests themselves go on without a terminal
stopping._PATIENCE_S, stopping._ONE_S = 0.3, 0.0
made = make_folder()

def told(number, after_s=0.2):
    threading.Timer(after_s, os.kill, [os.getpid(), number]).start()

def in_a_library():
    libc, lock = ctypes.CDLL(None), ctypes.create_string_buffer(256)
    libc.pthread_mutex_init(lock, None)
    for _ in range(2):
        libc.pthread_mutex_lock(lock)  # no signal ends the second one

def work():
    {work}

sys.exit(exit_code_of("sfpp-test", work))
"""


@pytest.fixture
def ended(tmp_path):
    """Return what does a command's work in a process of its own and returns its exit code and what it says."""

    def run(*work):
        done = subprocess.run(
            [sys.executable, "-c", COMMAND.format(work="\n    ".join(work))],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert list(tmp_path.iterdir()) == [] or done.returncode < 128
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_a_command_by_way_of_its_own_cleaning_up(ended, name, code):
    work = ["try:", f"    told(signal.{name}); time.sleep(20)", "finally:", "    print('cleaned')"]
    assert ended(*work) == (code, "cleaned\n", "sfpp-test: stopped\n")


def test_a_second_signal_does_not_tear_the_cleaning_up(ended):
    work = ["try:", "    told(signal.SIGTERM); time.sleep(20)", "finally:"]
    work += ["    told(signal.SIGTERM, 0); time.sleep(0.5)", "    print('cleaned')"]
    assert ended(*work) == (143, "cleaned\n", "sfpp-test: stopped\n")


def test_the_third_does_not_wait_for_it(ended):
    work = ["try:", "    told(signal.SIGTERM); time.sleep(20)", "finally:"]
    work += ["    told(signal.SIGINT, 0); told(signal.SIGINT, 0.2); time.sleep(20)"]
    assert ended(*work) == (143, "", "sfpp-test: stopped at once, by the third signal\n")


@pytest.mark.skipif(sys.platform != "linux", reason="the library that does not return is Linux's own")
def test_a_library_that_does_not_return_is_not_waited_for(ended):
    said = "sfpp-test: stopped at once, a library did not return\n"
    assert ended("told(signal.SIGTERM); in_a_library()") == (143, "", said)


@pytest.mark.skipif(sys.platform != "linux", reason="the library that does not return is Linux's own")
def test_a_thread_within_a_library_does_not_keep_a_command_from_ending(ended):
    work = ["threading.Thread(target=in_a_library, name='sfpp-infer', daemon=True).start()", "print('done')"]
    assert ended(*work, "return 7") == (7, "done\n", "")


def test_a_signal_that_python_lets_fall_is_raised_again(ended):
    """Amid the end of an object an exception goes nowhere."""
    work = ["class Ends:", "    def __del__(self): told(signal.SIGTERM, 0); time.sleep(0.5)"]
    assert ended(*work, "Ends()", "time.sleep(20)") == (143, "", "sfpp-test: stopped\n")


def test_an_error_that_a_library_makes_of_a_signal_is_no_error(ended):
    work = ["try:", "    told(signal.SIGTERM); time.sleep(20)", "except KeyboardInterrupt as error:"]
    assert ended(*work, "    raise ImportError('numpy') from error") == (143, "", "sfpp-test: stopped\n")


def test_what_goes_on_under_nohup_goes_on(ended):
    work = ["signal.signal(signal.SIGHUP, signal.SIG_IGN)"]
    listening = ["with stopping.listening('sfpp-test'):", "    pass"]
    assert ended(*work, *listening, "return 0")[0] == 0


def test_handlers_are_those_of_before_afterwards():
    run_alone("gives_handlers_back()")


def gives_handlers_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    hook = sys.unraisablehook
    with listening("sfpp-test") as signals:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert signals.first == signal.SIGTERM
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert sys.unraisablehook is hook
    assert signal.set_wakeup_fd(-1) == -1


def test_a_frame_that_does_not_come_back_is_given_up():
    run_alone("gives_a_frame_up()")


def gives_a_frame_up():
    stopping._PATIENCE_S = 0.1
    asked = threading.Event()
    with listening("sfpp-test"), stop_on_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop()
        with pytest.raises(Stopped) as raised, stop.stops(asked.set):
            time.sleep(20)
    assert asked.is_set()
    assert raised.value.number == signal.SIGTERM
