"""What `sfpp-run` writes of cameras, streams and several sources, and opening all of it."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfpp.runtime.commands.options import files_read
from sfpp.runtime.errors import UsageError
from sfpp.runtime.video.events import EventHandler
from sfpp.runtime.video.frames import Source
from sfpp.runtime.video.keypoints_file import keypoints_file
from sfpp.runtime.video.live import is_uri
from sfpp.runtime.video.outlets import Policy, SinkThread, record_lines
from sfpp.runtime.video.outlets.streams import STANDARD_OUTPUT
from sfpp.runtime.video.outputs import check_places, default_overlay
from sfpp.runtime.video.sinks import folder_sink, open_sink, shows_all_sources, sink_name, sink_place, snapshot_sink
from sfpp.runtime.video.streaming.delivery import Outlets

_SOURCE = "{source}"


@dataclass(frozen=True)
class Places:
    """What is written, as the command line names it; ``{source}`` stands for each source's name.

    Attributes:
        pictures: videos, pictures, folders and addresses for frames with what was found drawn over them.
        masks: a folder for PNGs of label values.
        records: a file for lines of JSON, or ``-``.
        snapshot: a picture from the run.
        keypoints: a file for keypoints in COCO's form.
    """

    pictures: tuple[str, ...] = ()
    masks: str | None = None
    records: str | None = None
    snapshot: str | None = None
    keypoints: str | None = None

    def all(self) -> tuple[str, ...]:
        """Every place."""
        others = (self.masks, self.records, self.snapshot, self.keypoints)
        return (*self.pictures, *(place for place in others if place is not None))

    def of(self, source: Source) -> Places:
        """Return the places of one source."""

        def named(place: str | None) -> str | None:
            return None if place is None else place.replace(_SOURCE, source.name)

        return Places(
            tuple(place.replace(_SOURCE, source.name) for place in self.pictures),
            *map(named, (self.masks, self.records, self.snapshot, self.keypoints)),
        )

    def of_all(self, sources: Sequence[Source]) -> tuple[str, ...]:
        """Return every place of every source, those that they share once."""
        return tuple(dict.fromkeys(place for source in sources for place in self.of(source).all()))

    def writes_to_standard_output(self) -> bool:
        """Whether frames or lines go where a report would be printed."""
        return any(sink_place(place) == STANDARD_OUTPUT for place in self.all())


def places_of(arguments: argparse.Namespace, sources: Sequence[Source]) -> Places:
    """Return what is to be written: a video of each source if nothing else was asked for.

    Raises:
        UsageError: it would overwrite an input, or several sources would write over each other.
    """
    wanted = tuple(arguments.outlets) or ((arguments.output,) if arguments.output is not None else ())
    others = arguments.masks, arguments.json, arguments.snapshot, arguments.keypoints_json
    if not wanted and arguments.view is None and all(each is None for each in others):
        wanted = (default_overlay(sources[0]).replace(sources[0].name, _SOURCE),)
    places = Places(wanted, *others)
    if len(sources) > 1:
        _check_names(places, len(sources))
    for source in sources:
        check_places(places.of(source).all(), sources, also_read=files_read(arguments))
    return places


def _check_names(places: Places, sources: int) -> None:
    """Refuse what several sources would write over each other; lines of JSON say which source they are of."""
    apart = [place for place in places.pictures if not shows_all_sources(place)]
    for place in (*apart, *filter(None, (places.masks, places.snapshot, places.keypoints))):
        if _SOURCE not in place:
            raise UsageError(
                f"{sink_name(place)} cannot hold {sources} sources; put {_SOURCE} into the name, such as "
                f"{sink_name(_with_source(place))}"
            )


def _with_source(place: str) -> str:
    """Return the name with a place for the source's name in it."""
    if is_uri(place):
        head, mark, options = place.partition("?")
        return f"{head.rstrip('/')}-{_SOURCE}{mark}{options}"
    path = Path(place)
    return str(path.with_name(f"{path.stem}-{_SOURCE}{path.suffix}"))


def outlet_name(place: str) -> str:
    """Return what the thread of an outlet is called, in events too."""
    return "standard output" if sink_place(place) == STANDARD_OUTPUT else sink_name(place)


@dataclass(frozen=True)
class Opening:
    """Opens the sinks of a run, each in a thread of its own, and closes them when ``stack`` is.

    Attributes:
        stack: holds what is open.
        policy: of the pipeline, and of every sink.
        on_event: told what happens to the sinks.
        on_stop: told when a window is closed.
    """

    stack: contextlib.ExitStack
    policy: Policy
    on_event: EventHandler
    on_stop: Callable[[], object]

    def outlets(self, places: Places, sources: Sequence[Source]) -> dict[str, Outlets]:
        """Return by name of the source what its answers go to.

        Raises:
            SfppError: something cannot be written.
        """
        opened: dict[str, SinkThread[Any]] = {}
        return {source.name: self._of_source(places.of(source), source, opened) for source in sources}

    def _of_source(self, places: Places, source: Source, opened: dict[str, SinkThread[Any]]) -> Outlets:
        def threaded(place: str | None, opening: Callable[[str], AbstractContextManager[Any]]) -> list[SinkThread[Any]]:
            if place is None:
                return []
            if place not in opened:  # else another source has it too
                thread = SinkThread(opening(place), name=outlet_name(place), policy=self.policy, on_event=self.on_event)
                opened[place] = self.stack.enter_context(thread)
            return [opened[place]]

        def picture(place: str) -> AbstractContextManager[Any]:
            return open_sink(
                place,
                frames_per_second=None if source.live else source.frames_per_second,
                count=source.count,
                live=source.live,
                on_event=self.on_event,
                on_stop=self.on_stop,
            )

        pictures = [sink for place in places.pictures for sink in threaded(place, picture)]
        pictures += threaded(places.snapshot, lambda place: snapshot_sink(Path(place), count=source.count))
        return Outlets(
            pictures=pictures,
            labels=threaded(places.masks, lambda place: folder_sink(Path(place))),
            records=threaded(
                places.records, lambda place: record_lines(place, live=source.live, on_event=self.on_event)
            ),
            keypoints=threaded(places.keypoints, keypoints_file),
        )
