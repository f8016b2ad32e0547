"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from sfpp.runtime.errors import SfppError, UsageError

_CHUNK_BYTES = 1 << 20

_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would exceed the allowed file size",
    errno.EACCES: "permission denied",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EROFS: "the file system is read-only",
}


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` if the block succeeds, else remove it.

    The temporary name keeps the suffix, since encoders and exporters choose their format by it.

    Raises:
        SfppError: ``path`` is a folder, its folder does not exist or cannot be written to, or the disk is full.
    """
    target = Path(path)
    with _disk_errors_named(target):
        _check_folders(target)
        # A name may have 255 bytes; the temporary one is longer than the final one unless the stem is cut.
        temporary = _temporary_beside(target)
        try:
            temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files; the result is an ordinary one
            yield temporary
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text, in UTF-8 and with a line break behind it, as :func:`whole_file` does.

    Raises:
        SfppError: as for :func:`whole_file`.
    """
    with whole_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def check_destinations(
    *paths: str | os.PathLike[str] | None, also_read: Iterable[str | os.PathLike[str] | None] = ()
) -> None:
    """Refuse what could not be written before minutes are spent on what is to be written; None is passed over.

    Args:
        paths: what will be written.
        also_read: what is read, and must not be overwritten.

    Raises:
        SfppError: a path is a folder, or its folder does not exist.
        UsageError: one path would be written over another, or over what is read.
    """
    taken = {Path(path).resolve() for path in also_read if path is not None}
    for path in paths:
        if path is None:
            continue
        _check_folders(Path(path))
        if Path(path).resolve() in taken:
            raise UsageError(f"{path} is named twice, and one would overwrite the other; give each output its own name")
        taken.add(Path(path).resolve())


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
        handle, name = tempfile.mkstemp(prefix=f".{target.stem[:40]}.", suffix=target.suffix, dir=target.parent)
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            raise
        # Such as in /proc: whatever the system's reason, nobody else's work is to blame for it here.
        raise SfppError(f"cannot write {target}: {error.strerror}; give another place") from error
    os.close(handle)
    return Path(name)


def _check_folders(target: Path) -> None:
    if target.is_dir():
        raise SfppError(f"cannot write {target}: it is a folder; give the name of a file")
    if not target.parent.is_dir():
        raise SfppError(f"cannot write {target}: the folder {target.parent} does not exist; create it first")


@contextlib.contextmanager
def _disk_errors_named(target: Path) -> Iterator[None]:
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
