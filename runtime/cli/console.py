"""What the commands share: a parser and its options, what they say while they work, and how they end."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO, cast

from sfpp.runtime.errors import MissingDependencyError, SfppError
from sfpp.runtime.text import clean_text, without_secrets

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

COMMAND = "sfpp-run"  # of this package; others name their own
_PATIENCE_S = 2.0  # what is over sooner needs no bar
INTERRUPTED = 130  # exit code of what a signal has ended: 128 + SIGINT, as shells report it, or what another makes it
_LARGEST_INT = 2**31 - 1  # what the libraries take that such numbers are handed on to
_BROKEN_PIPE = 141  # 128 + SIGPIPE
_LESS_MEMORY = "close other programs, take a smaller size, or a machine with more memory"
_PATH_ERRORS = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)
_PROBLEMS = ("warning: ", "error: ", "failed: ")  # how lines begin that --quiet does not hold back
_LOGGER = logging.getLogger("sfpp")  # its level is how much a command says: WARNING for --quiet, DEBUG for --verbose


def command_parser(command: str, *, description: str, epilog: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all commands have, which :func:`run_command` follows."""
    parser = _Parser(
        prog=command, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    loudness = parser.add_mutually_exclusive_group()
    for flags, level, meaning in (
        (("-q", "--quiet"), logging.WARNING, "print warnings, errors and what was asked for, and nothing else"),
        (("-v", "--verbose"), logging.DEBUG, "print also versions, what is logged, and where in the code errors arise"),
    ):
        options: dict[str, Any] = {"const": level, "default": logging.INFO, "help": meaning}
        loudness.add_argument(*flags, action="store_const", dest="log_level", **options)
    shown: dict[str, Any] = {"action": _Shown, "default": argparse.SUPPRESS}
    parser.add_argument("--version", nargs=0, help="print versions, and exit", **shown)
    parser.add_argument(
        "--print-completion",
        choices=("bash", "zsh", "tcsh"),
        help="print what the shell needs to complete options and files of this command, and exit",
        **shown,
    )
    return parser


class _Parser(argparse.ArgumentParser):
    """Repeats in its messages what it was given as :func:`_safe` does."""

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        super()._print_message(_safe(message), file)


class _Shown(argparse.Action):
    """Prints versions, or what completes in the shell that is named, whatever else was given, and ends the command."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: object, values: Any, option_string: str | None = None
    ) -> None:
        def show() -> int:
            print(_completion(parser, values) if values else _versions(parser.prog))
            return 0

        raise SystemExit(exit_code_of(parser.prog, show))


def _versions(command: str) -> str:
    from sfpp.runtime.machine import versions

    found = versions()
    return f"{command} {found.pop('sfpp', '?')}\n{', '.join(' '.join(each) for each in found.items())}"


def _completion(parser: argparse.ArgumentParser, shell: str) -> str:
    try:
        import shtab
    except ImportError as error:
        raise MissingDependencyError("shtab", extra="completion", purpose="completion in a shell") from error
    for action in parser._actions:
        # While options may stand anywhere, Python before 3.13 takes what else there is aside.
        action.nargs = getattr(action, "save_nargs", action.nargs)
        if action.nargs != 0 and action.type is None and action.choices is None:
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # where shtab looks for it
    return str(shtab.complete(parser, shell))


def run_command(command: str, arguments: argparse.Namespace, work: Callable[[argparse.Namespace], int]) -> int:
    """Do a command's work, as loudly as its options say, and return its exit code as :func:`exit_code_of` does.

    Args:
        command: its name, which begins its messages.
        arguments: what a :func:`command_parser` parsed; the work is given them without the options of all commands.
        work: returns the exit code.
    """
    with _safe_streams():
        before, handler = _LOGGER.level, logging.StreamHandler()
        handler.addFilter(_is_printed)
        _LOGGER.addHandler(handler)
        _LOGGER.setLevel(vars(arguments).pop("log_level"))
        try:
            if _LOGGER.level == logging.DEBUG:
                notes_of(command)(_versions(command))
            return exit_code_of(command, lambda: work(arguments))
        finally:
            _LOGGER.setLevel(before)
            _LOGGER.removeHandler(handler)


def _is_printed(record: logging.LogRecord) -> bool:
    """Whether a command prints what is logged: mostly, who is notified of it does so; ``--verbose`` prints the rest."""
    return hasattr(record, "printed") or (_LOGGER.level == logging.DEBUG and not getattr(record, "notified", False))


def is_quiet() -> bool:
    """Whether a command is to print nothing but warnings, errors and what was asked for."""
    return _LOGGER.level == logging.WARNING


def report(text: object, *, file: TextIO | None = None) -> None:
    """Print what a command has done, on standard output unless another file is given; nothing where it is quiet."""
    if not is_quiet():
        print(text, file=file)


def positive_int(text: str) -> int:
    """Argument type: an integer from 1 to 2147483647.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    if not text.isdecimal() or len(text) > len(str(_LARGEST_INT)) or not 1 <= int(text) <= _LARGEST_INT:
        raise argparse.ArgumentTypeError(f"{text!r} given, expected a whole number from 1 to {_LARGEST_INT}")
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


def notes_of(command: str = "", *, always: bool = False) -> Callable[[str], None]:
    """Return what prints a line on stderr, where it is no part of the result, behind the command's name if given.

    A quiet command prints only lines that are warnings or errors, unless they are to be printed ``always``.
    """
    prefix = f"{command}: " if command else ""

    def note(line: str) -> None:
        if always or not is_quiet() or line.startswith(_PROBLEMS):
            print(f"{prefix}{line}", file=sys.stderr, flush=True)

    return note


@contextlib.contextmanager
def progress_bar(*, hidden: bool = False, **options: Any) -> Iterator[Any]:
    """Yield a bar of tqdm's on stderr, which shows only where a person looks at it; None where tqdm is not installed.

    Args:
        hidden: show nothing, whoever looks.
        options: of tqdm.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        yield None
        return
    if options.get("desc"):
        options["desc"] = _safe(options["desc"])
    with tqdm(disable=hidden or is_quiet() or not sys.stderr.isatty(), file=terminal(), **options) as bar:
        yield bar


def terminal() -> TextIO:
    """Return stderr as it is, for what moves the cursor: bars, and who clears a line; never for what others named."""
    stream = sys.stderr
    while isinstance(stream, _SafeStream):
        stream = stream.stream
    return stream


class Bars(contextlib.AbstractContextManager["Bars"]):
    """Shows one bar at a time on stderr, of what takes a while; a context manager that closes the last one.

    Args:
        command: begins each line; none by default.
        unit: of the bar's steps.
    """

    def __init__(self, command: str = "", *, unit: str = "it") -> None:
        self._note = notes_of(command)
        self._unit = unit
        self._opened = contextlib.ExitStack()
        self._bar: Any = None
        self._step: str | None = None

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._close()
        self._note(line)

    def __call__(self, step: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` parts of a step are done; without tqdm, nothing is shown."""
        if step != self._step:
            self._close()
            self._step = step
            title = f"  {step}" if step else None
            self._bar = self._opened.enter_context(
                progress_bar(total=total, desc=title, unit=self._unit, delay=_PATIENCE_S, leave=False)
            )
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        self._opened.close()
        self._step = None

    def __exit__(self, *error: object) -> None:
        self._close()


def example_source(task: str) -> str:
    """Return a source to try a model of this task with, for the command that is suggested next."""
    return "demo" if task == "segmentation" else "PEOPLE.mp4"


def exit_code_of(command: str, work: Callable[[], int]) -> int:
    """Run a command's work and return its exit code; a foreseen failure becomes one line on stderr.

    Ctrl-C gives 130, SIGTERM 143 and SIGHUP 129, and what was begun is cleaned up, see :mod:`.stopping`; a reader of
    stdout that went away (as ``| head`` does) gives 141, without a word. A file that the system does not let be looked
    at, a disk that is full behind stdout, and memory that ran out are foreseen failures too.
    """
    from sfpp.runtime.cli.stopping import SIGNALED, ends_without_threads, listening  # not for --help

    with _safe_streams():
        with listening(command) as signals:
            code = _worked(command, signals.followed()(work))
        if code == INTERRUPTED and signals.first is not None:
            code = SIGNALED + signals.first
        ends_without_threads(code)
    return code


def _worked(command: str, work: Callable[[], int]) -> int:
    """Do the work and return its exit code, or say what went wrong and return that error's."""
    try:
        code = work()
        sys.stdout.flush()  # here rather than at exit, where a closed pipe would show a traceback
    except SfppError as error:
        if _LOGGER.level == logging.DEBUG:
            print(_safe(traceback.format_exc()), end="", file=sys.stderr)
        # A library that finds no memory to be loaded into says only that it cannot be.
        line = (isinstance(error, MissingDependencyError) and _foreseen(error.__cause__)) or str(error)
        print(f"{command}: error: {_one_line(line)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        from sfpp.runtime.scratch import discard_all

        discard_all()  # of what the signal struck between its making and the block that removes it
        print(f"{command}: stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _flush_nowhere()
        return _BROKEN_PIPE
    except Exception as error:
        if (reason := _foreseen(error)) is None:
            raise
        print(f"{command}: error: {_one_line(reason)}", file=sys.stderr)
        return SfppError.exit_code
    return code


def _one_line(text: str) -> str:
    return " ".join(_safe(text).splitlines())


def _safe(text: str, *, values: bool = True) -> str:
    """Return text that a terminal only shows, since names may hold codes that command it, and without passwords.

    Bytes of a file's name that are no text stay visible as escapes.
    """
    shown = text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
    return clean_text(without_secrets(shown, values=values))


class _SafeStream:
    """A standard stream on which all text is made safe; whatever else is asked of it, the stream itself does."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        # Values stay: the address of the page in the browser, which a person is to open, has its token in it.
        self.stream.write(_safe(text, values=False))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def _safe_streams() -> Iterator[None]:
    """Within the block, all that Python prints is text; the traceback of a bug that leaves it is so too.

    Within another such block nothing changes, or of two threads' blocks one would leave its streams behind.
    """
    _prepare_standard_streams()
    if isinstance(sys.stderr, _SafeStream):
        yield
        return
    before, sys.excepthook = sys.excepthook, _print_bug
    with (
        contextlib.redirect_stdout(cast(TextIO, _SafeStream(sys.stdout))),
        contextlib.redirect_stderr(cast(TextIO, _SafeStream(sys.stderr))),
    ):
        yield
    sys.excepthook = before  # not where an error passes: a bug's traceback is still to come


def _print_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    print(_safe("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def _prepare_standard_streams() -> None:
    """Open to nowhere what the caller has closed (``>&-``), and let stdout print any file's name."""
    while not all(map(_is_open, range(3))):
        os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number, which the next file would have got
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:  # print would take stdout instead
        sys.stderr = os.fdopen(2, "w", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _flush_nowhere() -> None:
    """Python flushes stdout once more when it ends; give it somewhere to flush to."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _foreseen(error: BaseException | None) -> str | None:
    """Return what to say of an error of the system that has no better words; None if it is a bug."""
    from sfpp.runtime.resources import is_out_of_memory  # only who fails needs it

    if error is not None and is_out_of_memory(error):
        return f"memory ran out; {_LESS_MEMORY}"
    # PyAV's have addresses with passwords in them.
    if not isinstance(error, OSError) or type(error).__module__ != "builtins":
        return None
    if error.filename is not None and error.errno in _PATH_ERRORS:
        return (
            f"cannot use {os.fsdecode(error.filename)}: {error.strerror}; check the name, and who may read and write it"
        )
    if error.filename is None and error.errno == errno.ENOSPC:
        _flush_nowhere()
        return "standard output cannot be written: the disk is full; make room"
    return None
