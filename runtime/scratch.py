"""Files and folders that are there only while a process works, and what killed ones have left of theirs."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# Which machine and process made it, so that it can be told whether that still works.
_NAME = re.compile(r"(\..*\.)?sfpp-(?P<machine>[0-9a-f]{8})-(?P<process>\d{1,10})-[0-9a-f]{8}(\..*)?", re.DOTALL)
_STEM = 40  # characters of a file's name: it may have 255 bytes, and the temporary one is longer
# Of processes of another machine, or of this one before it started anew, nothing is known but how old their files are.
_LEFT_S = 86_400.0

_ours: set[Path] = set()
_swept: set[str] = set()


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder in the system's place for temporary files, which is gone after the block."""
    folder = make_folder()
    try:
        yield folder
    finally:
        discard(folder)


def make_folder() -> Path:
    """Make an empty folder that only this user can look into; whoever made it discards it."""
    return _made(Path(tempfile.gettempdir()), "", "", lambda path: path.mkdir(mode=0o700))


def make_file_beside(target: Path) -> Path:
    """Make an empty file in the folder of another, with its suffix; whoever made it moves or discards it.

    Raises:
        OSError: the folder cannot be written to.
    """

    def make(path: Path) -> None:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    return _made(target.parent, f".{target.stem[:_STEM]}.", target.suffix, make)


def discard(path: Path) -> None:
    """Remove a file or folder that was made here, if it is still there."""
    _remove(path)
    _ours.discard(path)


def discard_all() -> None:
    """Remove all that this process has made here: it ends now, and cannot go back to where each was made."""
    for path in tuple(_ours):
        discard(path)


def _made(folder: Path, before: str, behind: str, make: Callable[[Path], None]) -> Path:
    _sweep(folder)
    while True:
        path = folder / f"{before}sfpp-{_this_machine()}-{os.getpid()}-{secrets.token_hex(4)}{behind}"
        _ours.add(path)  # first: a signal may strike at any moment
        try:
            make(path)
        except FileExistsError:
            _ours.discard(path)
        except BaseException:
            discard(path)
            raise
        else:
            return path


def _sweep(folder: Path) -> None:
    """Remove what processes that were killed have left in a folder; once, since it may hold a great many files."""
    place = os.path.realpath(folder)
    if place in _swept:
        return
    _swept.add(place)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if (made := _NAME.fullmatch(entry.name)) and _is_left(made, folder / entry.name):
                _remove(folder / entry.name)


def _is_left(made: re.Match[str], path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    if path in _ours or (hasattr(os, "geteuid") and found.st_uid != os.geteuid()):
        return False
    if made["machine"] != _this_machine():
        return time.time() - found.st_mtime > _LEFT_S
    return not _is_running(int(made["process"]))


def _is_running(process: int) -> bool:
    if process == os.getpid():  # another one of this number had made it
        return False
    if os.name != "posix":  # asking would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


@functools.cache
def _this_machine() -> str:
    """Return what is the same for processes that can see each other: containers count their own.

    Devices made from one image have one name, and may share a folder; what no two have is when they were started.
    """
    start = space = ""
    with contextlib.suppress(OSError):
        start = Path("/proc/sys/kernel/random/boot_id").read_text()
        space = str(Path("/proc/self/ns/pid").readlink())
    return hashlib.sha256(f"{platform.node()} {start} {space}".encode()).hexdigest()[:8]


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
