"""What `sfpp-run` writes of cameras, streams and several sources, and opening all of it."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfpp.runtime.commands.options import files_read
from sfpp.runtime.commands.session import note
from sfpp.runtime.errors import UsageError
from sfpp.runtime.events import EventHandler
from sfpp.runtime.files import free_path, identity
from sfpp.runtime.video.delivery import Outlets
from sfpp.runtime.video.frame import Source
from sfpp.runtime.video.outputs import check_folder, check_places, default_overlay
from sfpp.runtime.video.sinks.opening import (
    folder_sink,
    is_folder,
    open_sink,
    shows_all_sources,
    sink_name,
    sink_place,
    snapshot_sink,
)
from sfpp.runtime.video.sinks.raw import STANDARD_OUTPUT
from sfpp.runtime.video.sinks.records import keypoints_file, record_lines
from sfpp.runtime.video.sinks.thread import Policy, SinkThread
from sfpp.runtime.video.sources.address import is_uri, without_credentials

_SOURCE = "{source}"


@dataclass(frozen=True)
class Places:
    """What is written of one source.

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

    def folders(self) -> tuple[str, ...]:
        """Return those that are folders for pictures, which are named after the frames."""
        masks = () if self.masks is None else (self.masks,)
        return (*filter(is_folder, self.pictures), *masks)


@dataclass(frozen=True)
class Plan:
    """What is written of all sources.

    Attributes:
        by_source: places by the source's name; sources may share some.
        shared: folders in which each source has a place of its own.
    """

    by_source: Mapping[str, Places]
    shared: tuple[Path, ...] = ()

    def all(self) -> tuple[str, ...]:
        """Every place of every source, those that they share once."""
        found: list[str] = []
        before: set[str] = set()
        for places in self.by_source.values():
            found += [place for place in places.all() if place not in before]
            before.update(places.all())
        return tuple(found)

    def writes_to_standard_output(self) -> bool:
        """Whether frames or lines go where a report would be printed."""
        return any(sink_place(place) == STANDARD_OUTPUT for place in self.all())


def plan_for(arguments: argparse.Namespace, sources: Sequence[Source], *, live: bool) -> Plan:
    """Decide what is written, before anything is opened for it: an overlay of each source if nothing else is asked for.

    Args:
        arguments: of the command line, where ``{source}`` in a place stands for each source's name.
        sources: of different names, opened or closed again.
        live: whether they run through a live pipeline, where a snapshot alone is a reason to run.

    Raises:
        UsageError: it would overwrite an input, or several sources would write over each other.
    """
    _check_given_once(arguments.sources, sources)
    given = tuple(arguments.outlets) or ((arguments.output,) if arguments.output is not None else ())
    others = Places((), arguments.masks, arguments.json, arguments.snapshot, arguments.keypoints_json)
    reasons = others.all() if live else tuple(filter(None, (others.masks, others.keypoints)))
    by_default = not given and not reasons and arguments.view is None
    if len(sources) > 1:
        _check_names(given, others, sources, by_position=arguments.output is not None)
    found: dict[str, Places] = {}
    taken: set[Path] = set()
    for source in sources:
        pictures = _pictures(given, source, taken, several=len(sources) > 1)
        if by_default:
            pictures = (_free(default_overlay(source), source, taken),)
        taken.update(map(Path, pictures))
        found[source.name] = Places(pictures, *(_named(place, source) for place in _others(others)))
    plan = Plan(found, tuple(Path(place) for place in given if len(sources) > 1 and _is_shared(place)))
    _check(plan, sources, also_read=files_read(arguments))
    return plan


def _check(plan: Plan, sources: Sequence[Source], *, also_read: Sequence[str]) -> None:
    check_places(plan.all(), sources, also_read=also_read)
    for source in sources:
        for folder in plan.by_source[source.name].folders():
            check_folder(folder, source)


def _check_given_once(texts: Sequence[str], sources: Sequence[Source]) -> None:
    seen: set[object] = set()
    for text, source in zip(texts, sources, strict=True):
        what = tuple(map(identity, source.paths)) or text
        if what in seen:
            shown = without_credentials(text)
            raise UsageError(f"{shown} is given twice; give each source once, and say -o for an output")
        seen.add(what)


def _others(places: Places) -> tuple[str | None, ...]:
    return places.masks, places.records, places.snapshot, places.keypoints


def _named(place: str | None, source: Source) -> str | None:
    return None if place is None else place.replace(_SOURCE, source.name)


def _pictures(given: Sequence[str], source: Source, taken: Collection[Path], *, several: bool) -> tuple[str, ...]:
    """Return the places for a source's pictures: in a folder that sources share, one that is named after it."""
    return tuple(
        _free(os.path.join(place, default_overlay(source)), source, taken)  # noqa: PTH118 - a final slash counts
        if several and _is_shared(place)
        else place.replace(_SOURCE, source.name)
        for place in given
    )


def _is_shared(place: str) -> bool:
    return _SOURCE not in place and is_folder(place)


def _free(place: str, source: Source, taken: Collection[Path]) -> str:
    """Return a place that is named after its source, or the next one whose name is free, and tell of that.

    What is there may be of an earlier run, but nobody has said that it is to be overwritten. Recordings of live sources
    see to that themselves.
    """
    chosen = Path(place) if source.live else free_path(Path(place), taken=taken)
    slash = "/" if place.endswith("/") else ""
    if chosen != Path(place):
        note(f"{place} exists, so {chosen}{slash} is written; to write over it, say -o {place}")
    return f"{chosen}{slash}"


def _check_names(given: Sequence[str], others: Places, sources: Sequence[Source], *, by_position: bool) -> None:
    """Refuse what several sources would write over each other; lines of JSON say which source they are of."""
    apart = [place for place in given if not shows_all_sources(place) and not is_folder(place)]
    if others.masks is not None and any(source.kind != "picture" for source in sources):
        apart.append(others.masks)  # single pictures have names of their own in it
    for place in (*apart, *filter(None, (others.snapshot, others.keypoints))):
        if _SOURCE not in place:
            why = ", and is the output since it does not exist" if by_position and place in given else ""
            folder = ", or name a folder" if place in given and not is_uri(place) else ""
            raise UsageError(
                f"{sink_name(place)} cannot hold {len(sources)} sources{why}; put {_SOURCE} into the name, such as "
                f"{sink_name(_with_source(place))}{folder}"
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
        policy_of: what becomes of a source's frames for which there is no time.
        on_event: told what happens to the sinks.
        on_stop: told when a window is closed.
    """

    stack: contextlib.ExitStack
    policy_of: Callable[[Source], Policy]
    on_event: EventHandler
    on_stop: Callable[[], object]

    def outlets(self, plan: Plan, sources: Sequence[Source]) -> dict[str, Outlets]:
        """Return by name of the source what its answers go to.

        Raises:
            SfppError: something cannot be written.
        """
        opened: dict[str, SinkThread[Any]] = {}
        policies: dict[str, set[Policy]] = defaultdict(set)
        for source in sources:
            for place in plan.by_source[source.name].all():
                policies[place].add(self.policy_of(source))
        return {
            source.name: self._of_source(plan.by_source[source.name], source, opened, policies) for source in sources
        }

    def _of_source(
        self,
        places: Places,
        source: Source,
        opened: dict[str, SinkThread[Any]],
        policies: Mapping[str, Collection[Policy]],
    ) -> Outlets:
        def threaded(place: str | None, opening: Callable[[str], AbstractContextManager[Any]]) -> list[SinkThread[Any]]:
            if place is None:
                return []
            if place not in opened:  # else another source has it too
                policy = _of_shared(place, policies[place])
                thread = SinkThread(opening(place), name=outlet_name(place), policy=policy, on_event=self.on_event)
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
            labels=threaded(places.masks, lambda place: folder_sink(Path(place), keep_older=source.live)),
            records=threaded(
                places.records, lambda place: record_lines(place, live=source.live, on_event=self.on_event)
            ),
            keypoints=threaded(places.keypoints, keypoints_file),
        )


def _of_shared(place: str, policies: Collection[Policy]) -> Policy:
    """Return the policy of a place: where a file and a camera share one, no frame of the file is dropped.

    A window is only looked at, and does not hold up the camera.
    """
    first: Policy = "freshest" if shows_all_sources(place) else "every-frame"
    return first if first in policies else next(iter(policies))
