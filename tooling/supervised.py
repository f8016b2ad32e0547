"""A command's work in a process of its own, so that somebody is left to say so when the system kills it.

Linux ends a process that takes more memory than there is at once and without a word, and what it had in the folder for
temporary files stays there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from types import FrameType

from sfpp.runtime.errors import SfppError
from sfpp.runtime.scratch import discard, make_folder

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if sys.platform == "linux" else ()
_SIGNALLED = 128  # and the signal's number, as shells report it
_PR_SET_PDEATHSIG = 1


def supervised(command: str, work: Callable[[], int]) -> int:
    """Do the work of a command in a forked process and return its exit code.

    To be called before anything else: what a process holds is copied when it forks, and its threads are lost. Systems
    other than Linux kill nobody so, and macOS's own libraries do not work in forked processes: there it is done here.

    Args:
        command: begins the message when the work is killed.
        work: returns the exit code, or ends the process.
    """
    if sys.platform != "linux":
        return work()
    # Until there is somebody to hand them on to, they wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    folder = make_folder()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        _end_with(parent)
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        return work()
    try:
        _pass_on_to(child)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        discard(folder)
    return code if code >= 0 else _killed(command, signal.Signals(-code))


def _killed(command: str, by: signal.Signals) -> int:
    if by in _PASSED_ON:
        return _SIGNALLED + by
    likely = "as the system does where memory runs out" if by == signal.SIGKILL else "as libraries do without memory"
    print(
        f"{command}: error: the work was ended by signal {by} ({by.name}), {likely}; nothing was left behind: close "
        "other programs, take a smaller size, or a machine with more memory",
        file=sys.stderr,
    )
    return SfppError.exit_code


def _pass_on_to(child: int) -> None:
    """Hand on to the child what asks this process to end; of a terminal's Ctrl-C it then hears twice, as of one."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in _PASSED_ON:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup asks for
            signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)


def _end_with(parent: int) -> None:
    """Let this process end with the one that waits for it, where the system can (Linux)."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended just now
        os.kill(os.getpid(), signal.SIGTERM)
