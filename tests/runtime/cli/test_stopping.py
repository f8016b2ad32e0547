"""Signals are raised in processes of their own: what else has put a handler into this one may end it."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sfpp.runtime.cli.stopping import listening, stop_on_signals


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
