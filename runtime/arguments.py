"""What the commands share: types of arguments, and how a command ends."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from sfpp.runtime.errors import SfppError

_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
_BROKEN_PIPE = 141  # 128 + SIGPIPE


def positive_int(text: str) -> int:
    """Argument type: an integer from 1.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} given, expected a whole number from 1")
    return int(text)


def unit_interval(text: str) -> float:
    """Argument type: a number from 0 to 1.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} given, expected a number from 0 to 1")
    return value


def exit_code_of(command: str, work: Callable[[], int]) -> int:
    """Run a command's work and return its exit code; a foreseen failure becomes one line on stderr.

    Ctrl-C gives 130; a reader of stdout that went away (as ``| head`` does) gives 141, without a word.
    """
    try:
        code = work()
        sys.stdout.flush()  # here rather than at exit, where a closed pipe would show a traceback
    except SfppError as error:
        print(f"{command}: error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{command}: stopped", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more when it ends; give it somewhere to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    return code
