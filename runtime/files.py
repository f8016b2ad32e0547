"""Files that appear whole or not at all; and Python processes, which are looked for nowhere else."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import os
import re
import stat
import sys
import time
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from sfpp.runtime.errors import SfppError, UsageError
from sfpp.runtime.scratch import discard, make_file_beside, scratch_folder

_CHUNK_BYTES = 1 << 20
_MOST_LINKS = 40  # as Linux follows
_PIPE_PATIENCE_S = 10.0
_HEARING_S = 0.05
_PERMISSIONS = 0o777
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # of the two slashes pathlib leaves one; C:/ is a disk
_SHOWN = 60  # characters of a name that cannot be one
_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would exceed the allowed file size",
    errno.EACCES: "permission denied",
    errno.EPERM: "what has this name may not be replaced, as another user's in a shared folder",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EROFS: "the file system is read-only",
    errno.EBUSY: "it is in use, as a file that is mounted is",
}
# Told -c or -m, Python looks for modules in the current folder first: a json.py that lies beside a model would be run.
# Python before 3.11 has no option against it, but imports nothing before its first line of code, which can still mend
# the path; from 3.13 on it does import something by then, so that the option is needed.
_SAFE_PATH = ("-P",) if sys.version_info >= (3, 11) else ()
_AS_MAIN = "import runpy; sys.argv.pop(0); runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], *, settled: bool = True) -> Iterator[Path]:
    """Yield a temporary path; if the block succeeds it becomes the file ``path``, in one step, else it is removed.

    It lies beside ``path``, in a folder that is made if need be, and keeps the suffix, since encoders and exporters
    choose their format by it. A link stays one, and what it leads to is replaced; a file that is replaced leaves its
    permissions to the new one. What is there afterwards is there after a power cut too. A device or a pipe, such as
    ``/dev/stdout``, is no file that could be replaced: it is given all bytes, when there are all.

    Args:
        path: the file.
        settled: wait until it is on the disk, 6 ms on an SSD; who writes many files calls :func:`settle_all` instead,
            after the last.

    Raises:
        SfppError: ``path`` is a folder, a disk or a socket, its folder cannot be made or written to, the disk is full,
            or nobody reads the pipe.
    """
    target = Path(path)
    with disk_errors_named(target):
        with _errors_of_stream(target):
            stream = open_special(target)
        with _replacing(target, settled=settled) if stream is None else _passing_on(target, stream) as temporary:
            yield temporary


@contextlib.contextmanager
def _replacing(target: Path, *, settled: bool) -> Iterator[Path]:
    place = ordinary_place(target)
    with made_folder(place.parent):
        temporary = _temporary_beside(place)
        try:
            temporary.chmod(0o666 & ~_umask())  # it is private; the result is an ordinary one
            yield temporary
            _take_over_permissions(temporary, place)
            if settled:
                _settle(temporary)
            temporary.replace(place)
            if settled:
                _settle(place.parent)
        finally:
            discard(temporary)


def settle_all() -> None:
    """Wait until all that was written is on the disk, where the system can (not Windows)."""
    if hasattr(os, "sync"):
        os.sync()


def _settle(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk, so that they outlive a power cut.

    Raises:
        OSError: the disk turns out to be full, or failed.
    """
    is_folder = path.is_dir()
    try:
        number = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    except OSError:  # Windows opens no folders; a folder may be one to write into, and not to read
        return
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):  # some file systems have no such thing
            raise
    finally:
        os.close(number)


@contextlib.contextmanager
def made_folder(path: Path) -> Iterator[None]:
    """Make a folder with its parents, where it is missing; what nothing came into is gone again after the block.

    Raises:
        SfppError: it cannot be made.
    """
    _refuse_address(path)
    place = Path(os.path.realpath(path))  # also where a link leads that led nowhere
    missing = [each for each in (place, *place.parents) if not each.exists()]
    try:
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SfppError(f"cannot create the folder {path}: {error.strerror}; give another place") from error
        yield
    finally:
        for each in missing:
            with contextlib.suppress(OSError):  # there is something in it
                each.rmdir()


@contextlib.contextmanager
def _passing_on(target: Path, stream: io.FileIO) -> Iterator[Path]:
    with stream, scratch_folder() as folder:
        temporary = folder / f"whole{target.suffix}"
        temporary.touch()
        yield temporary
        with temporary.open("rb") as whole, _errors_of_stream(target):
            while chunk := whole.read(_CHUNK_BYTES):
                write_all(stream, chunk)


def ordinary_place(path: Path) -> Path:
    """Return where the ordinary file of this name lies, or would lie: links are followed.

    Raises:
        SfppError: it is no ordinary file, its folder is none, or a link leads to itself.
    """
    place = Path(os.path.realpath(path)) if path.is_symlink() else path
    if place.is_symlink():
        raise SfppError(f"cannot write {path}: it is a link that leads to itself; remove it")
    if place.is_dir():
        raise SfppError(f"cannot write {path}: it is a folder; give the name of a file")
    _refuse_address(place.parent)
    folder = Path(os.path.realpath(place.parent))
    above = next(each for each in (folder, *folder.parents) if each.exists())  # what is missing is made
    if not above.is_dir():
        raise SfppError(f"cannot write {path}: {above} is no folder; give another place")
    if _special_kind(path) is not None:
        raise SfppError(f"cannot write {path}: it is no ordinary file; give the name of one")
    return place


def _refuse_address(folder: Path) -> None:
    """Refuse to make the folders of an address, whose password would stay in their names."""
    if _ADDRESS.match(f"{folder}/") and not folder.exists():
        raise SfppError(f"cannot write to {folder}: it is an address; give a file, or make this folder if it is meant")


def open_special(path: Path) -> io.FileIO | None:
    """Open a pipe or a device to write to, unbuffered; None where the path is an ordinary file, or nothing yet.

    ``/dev/stdout``, ``/dev/fd/3`` and the shell's ``>(command)`` are this process's own open files and are written on
    where these stand. A named pipe waits for somebody who reads it, though not for ever.

    Raises:
        SfppError: it is a disk or a socket.
        OSError: it cannot be opened, or nobody reads the pipe.
    """
    kind = _special_kind(path)
    if kind is None:
        return None
    if kind in ("a disk", "a socket"):
        raise SfppError(f"cannot write {path}: it is {kind}; give the name of a file")
    number = open_number(path)
    if number is not None:
        for text_stream in filter(None, (sys.stdout, sys.stderr)):
            text_stream.flush()  # what was printed before comes first
        return io.FileIO(os.dup(number), "w")
    if kind == "a pipe":
        return _open_pipe(path)
    return io.FileIO(os.open(path, os.O_WRONLY | getattr(os, "O_NOCTTY", 0)), "w")


def open_number(path: Path) -> int | None:
    """Return the number of this process's open file that a path such as ``/dev/stdout`` means, else None."""
    own = re.compile(rf"/dev/fd|/proc/{os.getpid()}(/task/\d+)?/fd")
    for _ in range(_MOST_LINKS):
        folder = os.path.realpath(path.parent)
        if own.fullmatch(folder) and path.name.isdecimal():
            return int(path.name)
        try:
            path = Path(folder, path.readlink())
        except (OSError, ValueError):  # no link, or another's
            return None
    return None


def _special_kind(path: Path) -> str | None:
    """Say what a path is that is neither an ordinary file nor a folder, nor nothing yet."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None
    kinds = {stat.S_IFBLK: "a disk", stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device"}
    # Where a shell has opened an ordinary file, replacing that would leave the shell with the old one.
    return kinds.get(stat.S_IFMT(mode)) or (None if open_number(path) is None else "an open file")


def _open_pipe(path: Path) -> io.FileIO:
    # An ordinary opening waits within the system, where no wish to stop is heard.
    deadline_s = time.monotonic() + _PIPE_PATIENCE_S
    while (pipe := _open_if_read(path)) is None:
        if time.monotonic() > deadline_s:
            raise OSError(errno.ENXIO, "nobody reads this pipe")
        time.sleep(_HEARING_S)
    return pipe


def _open_if_read(path: Path) -> io.FileIO | None:
    try:
        number = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None
    os.set_blocking(number, True)
    return io.FileIO(number, "w")


def write_all(stream: io.FileIO, data: bytes | memoryview) -> None:
    """Write all of it; a pipe may take less at a time.

    Raises:
        BrokenPipeError: the reader has gone.
        OSError: the disk is full, or similar.
    """
    rest = memoryview(data).cast("B")
    while rest:
        # None is "not now", from a pipe that its other end has made non-blocking.
        rest = rest[stream.write(rest) or 0 :]


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text, in UTF-8 and with a line break behind it, as :func:`whole_file` does.

    Raises:
        SfppError: as for :func:`whole_file`.
    """
    with whole_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def check_name(path: str | os.PathLike[str]) -> None:
    """Refuse a name that no file here can have; whether one has it does not matter.

    Raises:
        UsageError: it is empty or too long, or holds a NUL or half of a surrogate pair.
    """
    text, reason = os.fspath(path), ""
    try:
        os.stat(text)  # noqa: PTH116 - its errors are what is asked for
    except ValueError as error:
        reason = str(error)
    except OSError as error:
        reason = {errno.ENAMETOOLONG: "it is too long"}.get(error.errno or 0, "")
    reason = reason if text else "it is empty"
    if reason:
        shown = f"{text[:_SHOWN]!r}{'...' * (len(text) > _SHOWN)}"
        raise UsageError(f"{shown} cannot be the name of a file: {reason}; check what names it")


def check_destinations(
    *paths: str | os.PathLike[str] | None, also_read: Iterable[str | os.PathLike[str] | None] = ()
) -> None:
    """Refuse what could not be written before minutes are spent on what is to be written; None is passed over.

    Args:
        paths: what will be written.
        also_read: what is read, and must not be overwritten.

    Raises:
        SfppError: a path is a folder, a disk or a socket, or lies in what is no folder.
        UsageError: one path would be written over another, or over what is read.
    """
    taken = {identity(path) for path in also_read if path is not None}
    for path in paths:
        if path is None:
            continue
        check_name(path)
        _check_place(Path(path))
        if identity(path) in taken:
            raise UsageError(f"{path} is named twice, and one would overwrite the other; give each output its own name")
        if not is_nowhere(path):
            taken.add(identity(path))


def check_utf8(path: str | os.PathLike[str], *, reader: str) -> None:
    """Refuse a name with bytes that are no UTF-8, where a library takes nothing else.

    Raises:
        UsageError: it has such bytes; the message says which library this is about.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the name of {path} is no UTF-8, which {reader} needs; rename it") from error


def identity(path: str | os.PathLike[str]) -> tuple[object, ...]:
    """Return what is equal for two names of one file: of links, hard ones too, and of other spellings.

    Names of files that do not exist yet count as one where they differ only in what some file systems overlook: upper
    and lower case, and how accents are composed.
    """
    try:
        found = Path(path).stat()
        return found.st_dev, found.st_ino
    except (OSError, ValueError):
        place = Path(os.path.realpath(path))
        same_name = unicodedata.normalize("NFC", place.name.casefold())
        with contextlib.suppress(OSError, ValueError):
            at = place.parent.stat()
            return at.st_dev, at.st_ino, same_name
        return place.parent, same_name


def free_path(path: Path, *, first: int = 2, taken: Collection[Path] = ()) -> Path:
    """Return the path, or where something has that name or is to get it the first free: ``a.mp4``, ``a-2.mp4``, ..."""
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(first))
    return next(each for each in itertools.chain([path], numbered) if not os.path.lexists(each) and each not in taken)


def is_nowhere(path: str | os.PathLike[str]) -> bool:
    """Whether the path is the device that forgets, /dev/null, which any number of outputs may be named after."""
    with contextlib.suppress(OSError, ValueError):
        found = Path(path).stat()
        return stat.S_ISCHR(found.st_mode) and found.st_rdev == Path(os.devnull).stat().st_rdev
    return False


def sha256_of(paths: Iterable[Path], *, prefix: bytes = b"") -> str:
    """Return the SHA-256, in hexadecimal, of ``prefix`` and the files' contents one after another."""
    digest = hashlib.sha256(prefix)
    for path in paths:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def _temporary_beside(target: Path) -> Path:
    try:
        return make_file_beside(target)
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            raise
        # Such as in /proc: whatever the system's reason, nobody else's work is to blame for it here.
        raise SfppError(f"cannot write {target}: {error.strerror}; give another place") from error


def _check_place(path: Path) -> None:
    kind = _special_kind(path)
    if kind in ("a disk", "a socket"):
        raise SfppError(f"cannot write {path}: it is {kind}; give the name of a file")
    if kind is None:
        ordinary_place(path)


def _take_over_permissions(temporary: Path, place: Path) -> None:
    try:
        before = place.stat()
    except OSError:  # nothing is replaced
        return
    now = temporary.stat()
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        with contextlib.suppress(OSError):  # only root may give files away
            os.chown(temporary, before.st_uid, before.st_gid)
    temporary.chmod(stat.S_IMODE(before.st_mode) & _PERMISSIONS)


@contextlib.contextmanager
def _errors_of_stream(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = "nobody reads it any more" if isinstance(error, BrokenPipeError) else error.strerror
        raise SfppError(f"cannot write {target}: {reason}; give another place") from error


@contextlib.contextmanager
def disk_errors_named(target: Path) -> Iterator[None]:
    """Within the block, that a disk is full, or the like, is said of the file that is being written.

    Raises:
        SfppError: it is so.
    """
    try:
        yield
    except OSError as error:
        reason = _DISK_ERRORS.get(error.errno or 0)
        if reason is None:
            raise
        raise SfppError(f"cannot write {target}: {reason}; nothing was left behind") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def python_module(module: str, *arguments: str) -> dict[str, Any]:
    """Return what :mod:`subprocess` has to be called with to run a module as ``python -m`` does; see below."""
    return python_code(_AS_MAIN, module, *arguments)


def python_code(code: str, *arguments: str) -> dict[str, Any]:
    """Return what :mod:`subprocess` has to be called with to run code in another Python.

        subprocess.run(**python_code("import json; print(json.__file__)"), check=True)

    The child looks for modules exactly where this process does: also where a test or a notebook has added a path by
    hand, and never in the current folder unless this process does so too. The code finds ``sys`` imported.
    """
    path = [entry for entry in sys.path if isinstance(entry, str) and entry]
    return {"args": [sys.executable, *_SAFE_PATH, "-c", f"import sys; sys.path[:] = {path!r}\n{code}", *arguments]}
