"""A line of JSON for each frame, readable while it is written; and keypoints in COCO's form."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import UsageError
from sfpp.runtime.events import Event, EventHandler, ignore
from sfpp.runtime.files import check_destinations, open_number, whole_file
from sfpp.runtime.model import Result, SelfTestState
from sfpp.runtime.motion.options import carried_s
from sfpp.runtime.text import escaped_in_json
from sfpp.runtime.typed_json import json_ready
from sfpp.runtime.video.frame import Frame
from sfpp.runtime.video.sinks.raw import STANDARD_OUTPUT, ByteStream

RECORD_SUFFIX = ".jsonl"
_BEGINNING = re.compile(rb'\{"source": ?"')  # of :func:`frame_record` as a line, also of one that was broken off
_HEAD = 16  # bytes
_TIME_DIGITS = 3  # of seconds
_LATENCY_DIGITS = 2  # of milliseconds
_AGE_DIGITS = 1
_PERSON = 1  # COCO's number of the category
_COCO_NAME = re.compile(r"(?:COCO_\w+_)?(?P<id>[0-9]+)")


@contextlib.contextmanager
def record_lines(target: str | os.PathLike[str], *, on_event: EventHandler = ignore) -> Iterator[RecordLines]:
    """Write records into a file, behind those that it has already, or to standard output.

    A line can be read as soon as it is written (``tail -f``), and stays whatever ends the program; so the file is under
    its own name from the beginning on. A reader of standard output or of a pipe that goes away ends the lines, with an
    event, and not the program.

    Args:
        target: a file's name, or ``-`` for standard output.
        on_event: told when the reader has gone, and of lines that are there already.

    Raises:
        UsageError: the file holds something else.
        SfppError: the file cannot be written.
    """
    older = check_records(target)
    with contextlib.closing(ByteStream(os.fspath(target), "lines", on_event, append=True)) as stream:
        stream.open()
        if older:
            on_event(Event("note", stream.name, "lines are added to those of before"))
            stream.write(b"" if older == b"\n" else b"\n")  # the last one may have been broken off
        yield RecordLines(stream)


def check_records(target: str | os.PathLike[str]) -> bytes:
    """Refuse a file that lines cannot be added to, since it holds something else; return the last byte of lines.

    Raises:
        UsageError: it does.
        SfppError: it is a folder, a disk or a socket.
    """
    path = Path(target)
    if os.fspath(target) == STANDARD_OUTPUT:
        return b""
    check_destinations(path)
    if not path.is_file() or open_number(path) is not None or not path.stat().st_size:
        return b""
    with path.open("rb") as file:
        if _BEGINNING.match(file.read(_HEAD)):
            file.seek(-1, os.SEEK_END)
            return file.read()
    raise UsageError(f"{path} exists, and lines can only be added to lines of --json; give another name, or remove it")


class RecordLines:
    """Writes one line a frame; use it through :func:`record_lines`.

    As a sink for pictures it writes which frames came and when; what was seen in them is in the records.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    def write(self, frame: Frame, image: NDArray[np.uint8]) -> None:
        """Write the record of a frame of which only the picture is known; the picture itself is not written."""
        self.write_record(frame_record(frame))

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write a record of :func:`frame_record` as a line of JSON; what is no finite number becomes null.

        Raises:
            MediaError: the disk is full, or similar.
        """
        if not self._stream.ended:
            line = escaped_in_json(json.dumps(json_ready(dict(record)), ensure_ascii=False))
            self._stream.write(line.encode() + b"\n")


def frame_record(
    frame: Frame,
    result: Result | None = None,
    *,
    latency_ms: Mapping[str, float] | None = None,
    self_test: SelfTestState | None = None,
) -> dict[str, Any]:
    """Return what is known of a frame and of what was found in it; what is not known is left out.

    Args:
        frame: the frame.
        result: what the model found.
        latency_ms: milliseconds by stage.
        self_test: the model's.

    Returns:
        By name: ``source``, ``frame`` (its number in its source, from 0), ``frame_name``, ``time_s`` since the source's
        first frame, ``taken_unix_s`` (when it came, in seconds since 1970), ``age_ms`` from there to now,
        ``labels_age_ms`` from when the frame came that the network saw, where that is an earlier one, ``latency_ms``,
        ``self_test`` (``passed``, ``failed``, ``damaged``, ``not carried`` or ``off``) and ``self_test_agreement``
        (0..1, where it was replayed in this run); then what was found: ``shares``, the part of the frame, 0..1, that
        each class covers, without those that cover nothing; or ``people``, each as in the keypoints file.
    """
    record: dict[str, Any] = {
        "source": frame.source,
        "frame": frame.index,
        "frame_name": frame.name,
        "time_s": round(frame.time_s, _TIME_DIGITS),
    }
    if frame.taken_s:
        age_s = time.monotonic() - frame.taken_s
        record |= {"taken_unix_s": round(time.time() - age_s, _TIME_DIGITS), "age_ms": round(1000 * age_s, _AGE_DIGITS)}
        if older_s := carried_s(result):
            record["labels_age_ms"] = round(1000 * (age_s + older_s), _AGE_DIGITS)
    if latency_ms:
        record["latency_ms"] = {stage: round(value, _LATENCY_DIGITS) for stage, value in latency_ms.items()}
    if self_test is not None:
        record["self_test"] = self_test.outcome
        if self_test.agreement is not None:
            record["self_test_agreement"] = self_test.agreement
    return record if result is None else {**record, **result.to_record()}


class KeypointsFile:
    """Writes people to ``stream``, one a line; use it through :func:`keypoints_file`."""

    def __init__(self, stream: TextIO, *, image_ids: Mapping[str, int], is_list: bool) -> None:
        self._stream = stream
        self._image_ids = image_ids
        self._is_list = is_list
        self._count = 0

    def write(self, frame: Frame, result: Result) -> None:
        """Write the people of ``frame``, whose result is a :class:`sfpp.runtime.Pose`.

        Raises:
            OSError: the disk is full, or similar.
        """
        for person in result.to_record()["people"]:
            line = {
                "image_id": self._image_ids.get(frame.name, frame.index),
                "category_id": _PERSON,
                **person,
                "time_s": round(frame.time_s, _TIME_DIGITS),
                "frame_name": frame.name,
            }
            before = (",\n" if self._count else "[\n") if self._is_list else ""
            self._stream.write(before + json.dumps(line, ensure_ascii=False) + "\n" * (not self._is_list))
            self._count += 1

    def end(self) -> None:
        """Write what ends a list."""
        if self._is_list:
            self._stream.write("\n]\n" if self._count else "[]\n")


@contextlib.contextmanager
def keypoints_file(
    path: str | os.PathLike[str], *, image_ids: Mapping[str, int] | None = None
) -> Iterator[KeypointsFile]:
    """Write keypoints into a file that appears under its name when it is complete.

    A ``.json`` file is one list, as COCO's own tools read it; any other has a line of JSON for each person. Each has
    ``image_id``, ``category_id`` 1, ``keypoints`` (x, y in frame pixels and score, one after the other), ``score``
    (their mean), ``bbox`` (left, top, width, height), ``track_id`` (the same for the same person), ``time_s`` from the
    start, and ``frame_name``.

    Ctrl-C within the block keeps what was written so far; any other error leaves nothing behind.

    Args:
        path: the file.
        image_ids: of frames by their names, see :func:`image_ids_of`; any other gets its number in its source, from 0.

    Raises:
        SfppError: the folder does not exist, or the disk is full.
    """
    interruption: KeyboardInterrupt | None = None
    is_list = os.fspath(path).lower().endswith(".json")
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        file = KeypointsFile(stream, image_ids=image_ids or {}, is_list=is_list)
        try:
            yield file
        except KeyboardInterrupt as error:
            interruption = error
        file.end()
    if interruption is not None:
        raise interruption


def image_ids_of(names: Sequence[str], known: Mapping[str, int] | None = None) -> dict[str, int]:
    """Return COCO's ids of pictures: those that are known, else the numbers that pictures of COCO have for names.

    Args:
        names: of all pictures, without suffix, such as ``000000000139`` or ``COCO_val2014_000000000139``.
        known: by name.

    Returns:
        By name; empty where one of the pictures has no id, or two have the same.
    """
    ids = dict(known or {})
    if not ids.keys() >= set(names):
        numbered = ((name, _COCO_NAME.fullmatch(name)) for name in names)
        ids = {name: int(match["id"]) for name, match in numbered if match}
    chosen = {name: ids[name] for name in names if name in ids}
    return chosen if len(set(chosen.values())) == len(names) else {}
