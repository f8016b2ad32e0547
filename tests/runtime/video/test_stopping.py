"""Signals are raised in the thread of the test: what is sent to a process may come after the test, and end it."""

import signal
import threading

import pytest

from sfpp.runtime.video.stopping import stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_interrupts(number):
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert not stop()
        signal.raise_signal(number)
        assert stop()
        assert stop.signal_number == number
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        signal.raise_signal(number)  # by now the files are being completed
    assert signal.getsignal(number) is before


def test_signals_do_not_tear_what_is_being_closed():
    with stop_on_signals() as stop:
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
