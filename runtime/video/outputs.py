"""What a run writes and where: decided before anything is opened or written, then opened, each in its own thread."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sfpp.runtime.errors import UsageError
from sfpp.runtime.events import EventHandler, ignore
from sfpp.runtime.files import check_destinations, free_path, identity, is_nowhere
from sfpp.runtime.video.delivery import SourceSinks
from sfpp.runtime.video.frame import Source
from sfpp.runtime.video.mailbox import Policy
from sfpp.runtime.video.readers import expected_frames, policy_for
from sfpp.runtime.video.sinks.opening import (
    FOLDER_SUFFIX,
    check_picture_path,
    check_sink,
    folder_sink,
    open_sink,
    output_from,
    snapshot_sink,
)
from sfpp.runtime.video.sinks.raw import STANDARD_OUTPUT
from sfpp.runtime.video.sinks.records import check_records, image_ids_of, keypoints_file, record_lines
from sfpp.runtime.video.sinks.thread import SinkThread
from sfpp.runtime.video.sources.address import is_uri

_SOURCE = "{source}"
_DEFAULT_ENDINGS = {"picture": "-sfpp.png", "folder": "-sfpp/"}  # all others become a video
_TAKES = {"masks": "masks", "json": "records", "people": "keypoints"}  # by stage; all others take overlays


@dataclass(frozen=True)
class Outputs:
    """What is wanted, or what is written of one source; None for what is not.

    Attributes:
        overlays: videos, images, folders (a final slash makes one) and addresses for frames with what was found drawn
            over them; as text, since paths drop the slash.
        masks: a folder for PNGs of label values.
        json: a file for a line of JSON for each frame, or ``-``.
        snapshot: an image from the middle of the run.
        keypoints: a file for keypoints in COCO's form.
    """

    overlays: tuple[str, ...] = ()
    masks: str | None = None
    json: str | None = None
    snapshot: str | None = None
    keypoints: str | None = None

    def by_stage(self) -> dict[str, str]:
        """Return every output by the name of the stage that writes it."""
        overlays = {f"encode{f' {number}' * (number > 1)}": text for number, text in enumerate(self.overlays, start=1)}
        others = {"masks": self.masks, "json": self.json, "snapshot": self.snapshot, "people": self.keypoints}
        return overlays | {stage: text for stage, text in others.items() if text is not None}

    def all(self) -> tuple[str, ...]:
        """Every output."""
        return tuple(self.by_stage().values())

    def for_source(self, name: str) -> Outputs:
        """Return them with the source's name where ``{source}`` stands."""
        singles = {key: text and text.replace(_SOURCE, name) for key, text in vars(self).items() if key != "overlays"}
        return Outputs(tuple(text.replace(_SOURCE, name) for text in self.overlays), **singles)


@dataclass(frozen=True)
class Plan:
    """What is written of all sources.

    Attributes:
        by_source: outputs by the source's name; sources may share some.
        every: only every Nth frame is taken: a video then shows fewer frames a second.
        max_frames: how many frames there will be at most.
    """

    by_source: Mapping[str, Outputs]
    every: int = 1
    max_frames: int | None = None

    def all(self) -> tuple[str, ...]:
        """Every output of every source, those that they share once."""
        return tuple(dict.fromkeys(text for outputs in self.by_source.values() for text in outputs.all()))

    def shared(self) -> tuple[str, ...]:
        """Return those that several sources share."""
        counts = Counter(text for outputs in self.by_source.values() for text in set(outputs.all()))
        return tuple(text for text in self.all() if counts[text] > 1)

    def writes_to_standard_output(self) -> bool:
        """Whether frames or lines go where a report would be printed."""
        return any(output_from(text).place == STANDARD_OUTPUT for text in self.all())

    def count(self, source: Source) -> int | None:
        """How many frames of a source will come, as far as it knows its own length."""
        return expected_frames(source, every=self.every, max_frames=self.max_frames)

    def check(self, sources: Sequence[Source], *, also_read: Sequence[str] = ()) -> None:
        """Refuse outputs that would overwrite an input, other files that are ``also_read``, each other, or pictures.

        Files are told by what they are, whatever links and spellings lead to them. What has a name of no known kind, or
        lies in what is no folder, is refused too.

        Raises:
            UsageError: they would, or a name or an address is none.
            SfppError: an output lies in what is no folder.
        """
        _check_places(self._unshared(), sources, also_read=also_read)
        for source in sources:
            for stage, text in self.by_source[source.name].by_stage().items():
                overlay = stage.startswith("encode")
                if stage == "masks" or (overlay and output_from(text).kind == "folder"):
                    _check_folder(Path(text), source)
                if overlay:
                    check_sink(text, count=self.count(source))
                elif stage == "snapshot":
                    check_picture_path(Path(text))
                elif stage == "json":
                    check_records(text)
                elif stage == "people" and text != STANDARD_OUTPUT:
                    check_destinations(text)

    def _unshared(self) -> Iterator[str]:
        """Yield every output, one that several sources share once, and one that a source has twice as often."""
        before: set[str] = set()
        for outputs in self.by_source.values():
            yield from (text for text in outputs.all() if text not in before)
            before.update(outputs.all())


def plan_outputs(
    wanted: Outputs,
    sources: Sequence[Source],
    *,
    viewed: bool = False,
    by_position: bool = False,
    also_read: Sequence[str] = (),
    every: int = 1,
    max_frames: int | None = None,
    notify: Callable[[str], object] = lambda line: None,
) -> Plan:
    """Decide what is written of each source: an overlay if nothing else is asked for.

    Args:
        wanted: with ``{source}`` for each source's name.
        sources: of different names, opened or closed again.
        viewed: whether a page shows the frames, which is a reason to write nothing.
        by_position: whether the only overlay is one because it does not exist yet.
        also_read: other files that are read.
        every: take every Nth frame only.
        max_frames: how many frames there will be at most.
        notify: takes a line where another name than the usual one is chosen.

    Raises:
        UsageError: it would overwrite an input, or several sources would write over each other.
    """
    several = len(sources) > 1
    shared = [text for text in wanted.overlays if several and _is_shared(text)]
    # A snapshot is a look at a run, and nobody runs a whole file for it alone.
    reasons = (*wanted.overlays, *filter(None, (wanted.masks, wanted.json, wanted.keypoints)))
    reasons += (wanted.snapshot,) if wanted.snapshot and any(source.live for source in sources) else ()
    if several:
        _check_names(wanted, sources, by_position=by_position)
    found: dict[str, Outputs] = {}
    taken: set[Path] = set()
    for source in sources:
        outputs = wanted.for_source(source.name)
        overlays = tuple(
            _free(os.path.join(text, default_overlay(source)), source, taken, notify)  # noqa: PTH118 - a slash counts
            if text in shared
            else named
            for text, named in zip(wanted.overlays, outputs.overlays, strict=True)
        )
        if not reasons and not viewed:
            overlays = (_free(default_overlay(source), source, taken, notify),)
        taken.update(map(Path, overlays))
        found[source.name] = replace(outputs, overlays=overlays)
    plan = Plan(found, every, max_frames)
    plan.check(sources, also_read=also_read)
    return plan


def default_overlay(source: Source) -> str:
    """Name the output after the input, in the current folder: highway.mp4 -> highway-sfpp.mp4."""
    return source.name + _DEFAULT_ENDINGS.get(source.kind, "-sfpp.mp4")


class Sinks(AbstractContextManager["Sinks"]):
    """Opens the outputs of a plan, each in a thread of its own; a context manager that closes what sources share.

    Args:
        plan: what is written.
        sources: of the plan, opened or closed again.
        policy: what becomes of frames for which there is no time; None drops those of live sources only.
        audio: copy the sound of a video file into the video of it.
        image_ids: of frames by their names, for keypoints.
        on_event: takes what happens to the sinks.
        on_stop: called when a window is closed.
    """

    def __init__(
        self,
        plan: Plan,
        sources: Sequence[Source],
        *,
        policy: Policy | None = None,
        audio: bool = True,
        image_ids: Mapping[str, int] | None = None,
        on_event: EventHandler = ignore,
        on_stop: Callable[[], object] = lambda: None,
    ) -> None:
        self._plan = plan
        self._image_ids = image_ids or {}
        self._policy = policy
        self._audio = audio
        self._on_event = on_event
        self._on_stop = on_stop
        self._stack = contextlib.ExitStack()
        self._opened: dict[str, SinkThread] = {}
        self._shared: dict[str, Policy] = {}  # their policies
        for text in plan.shared():
            those = (source for source in sources if text in plan.by_source[source.name].all())
            self._shared[text] = _of_shared(text, {policy_for(source, policy) for source in those})

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    @contextlib.contextmanager
    def of(self, source: Source) -> Iterator[SourceSinks]:
        """Within the block, what the answers for this source go to; at its end what is the source's own is complete.

        Raises:
            SfppError: something cannot be written.
        """
        policy = policy_for(source, self._policy)
        threads: dict[str, dict[str, SinkThread]] = {"overlays": {}, "masks": {}, "records": {}, "keypoints": {}}
        drawing = None
        with contextlib.ExitStack() as stack:
            for stage, text in self._plan.by_source[source.name].by_stage().items():
                threads[_TAKES.get(stage, "overlays")][stage] = self._thread(stage, text, source, stack)
            if threads["overlays"] and policy == "every-frame":
                nothing: AbstractContextManager[Any] = contextlib.nullcontext()
                drawing = stack.enter_context(SinkThread(nothing, name="drawing", policy=policy))
            yield SourceSinks(**threads, drawing=drawing)

    def _thread(self, stage: str, text: str, source: Source, stack: contextlib.ExitStack) -> SinkThread:
        """Open what is the source's own, or for all of them what they share."""
        if text in self._opened:
            return self._opened[text]
        shared = text in self._shared
        policy = self._shared[text] if shared else policy_for(source, self._policy)
        opening, output = self._opening(stage, text, source), output_from(text)
        complete = stage in ("json", "people") or output.kind == "lines"
        thread = SinkThread(opening, name=output.thread_name, policy=policy, complete=complete, on_event=self._on_event)
        (self._stack if shared else stack).enter_context(thread)
        if shared:
            self._opened[text] = thread
        return thread

    def _opening(self, stage: str, text: str, source: Source) -> AbstractContextManager[Any]:
        count, live, on_event = self._plan.count(source), source.live, self._on_event
        if stage == "masks":
            return folder_sink(Path(text), keep_older=live)
        if stage == "json":
            return record_lines(text, on_event=on_event)
        if stage == "people":
            return keypoints_file(text, image_ids=image_ids_of(source.frame_names or (), self._image_ids))
        if stage == "snapshot":
            return snapshot_sink(Path(text), count=count)
        rate = None if live or source.frames_per_second is None else source.frames_per_second / self._plan.every
        return open_sink(
            text,
            frames_per_second=rate,
            count=count,
            live=live,
            origin=source.origin if self._audio else None,
            on_event=on_event,
            on_stop=self._on_stop,
        )


def _of_shared(text: str, policies: Collection[Policy]) -> Policy:
    """Return the policy of a shared output: where a file and a camera have one, no frame of the file is dropped.

    A window is only looked at, and does not hold up the camera.
    """
    first: Policy = "freshest" if output_from(text).kind == "window" else "every-frame"
    return first if first in policies else next(iter(policies))


def _check_places(texts: Iterable[str], sources: Sequence[Source], *, also_read: Sequence[str]) -> None:
    inputs = {identity(path) for path in (*(path for each in sources for path in each.paths), *map(Path, also_read))}
    pictures = [path for each in sources if each.kind in ("picture", "folder") for path in each.paths]
    # Where a picture is a link, what it leads to would be overwritten too.
    parents = {path.parent for path in pictures} | {path.resolve().parent for path in pictures if path.is_symlink()}
    folders = set(map(identity, parents))
    taken: set[object] = set()
    for text in texts:
        output = output_from(text)
        name, place = output.name, output.place
        key = identity(place) if isinstance(place, Path) else place
        if key in inputs:
            raise UsageError(f"the output {name} is the input itself; give another name")
        # Pictures in a folder are named after the frames, and so after the pictures that were read.
        if key in folders:
            raise UsageError(
                f"the output folder {name} holds the input, which would be overwritten; give another folder"
            )
        if key in taken:
            raise UsageError(f"two outputs go to {output.thread_name}; give each its own name")
        if not is_nowhere(place):
            taken.add(key)


def _check_folder(folder: Path, source: Source) -> None:
    """Refuse a folder that holds files whose names pictures of a source would get, whoever wrote them.

    Pictures of a live source are not refused: they get a number.
    """
    if source.live or not folder.is_dir():
        return
    if source.frame_names is not None:
        files = (folder / f"{name}{FOLDER_SUFFIX}" for name in source.frame_names)
        existing = next(filter(os.path.lexists, files), None)
    else:
        numbered = (each for each in folder.iterdir() if each.suffix.lower() == FOLDER_SUFFIX)
        existing = next((each for each in numbered if source.numbers(each.stem)), None)
    if existing is not None:
        raise UsageError(
            f"{existing} exists, and would be overwritten; give another folder, or take away what is in this one"
        )


def _is_shared(text: str) -> bool:
    return _SOURCE not in text and output_from(text).kind == "folder"


def _free(text: str, source: Source, taken: Collection[Path], notify: Callable[[str], object]) -> str:
    """Return an output that is named after its source, or the next one whose name is free, and tell of that.

    What is there may be of an earlier run, but nobody has said that it is to be overwritten. Recordings of live sources
    see to that themselves.
    """
    chosen = Path(text) if source.live else free_path(Path(text), taken=taken)
    slash = "/" if text.endswith("/") else ""
    if chosen != Path(text):
        notify(f"{text} exists, so {chosen}{slash} is written; to write over it, say -o {text}")
    return f"{chosen}{slash}"


def _check_names(wanted: Outputs, sources: Sequence[Source], *, by_position: bool) -> None:
    """Refuse what several sources would write over each other; lines of JSON say which source they are of."""
    apart = [wanted.snapshot, wanted.keypoints]
    if any(source.kind != "picture" for source in sources):  # single pictures have names of their own in a folder
        apart.insert(0, wanted.masks)
    overlays = [
        text for text in wanted.overlays if _SOURCE not in text and output_from(text).kind not in ("window", "folder")
    ]
    for text in (*overlays, *(text for text in apart if text is not None and _SOURCE not in text)):
        given = text in wanted.overlays
        why = ", and is the output since it does not exist" if by_position and given else ""
        folder = ", or name a folder" if given and not is_uri(text) else ""
        raise UsageError(
            f"{output_from(text).name} cannot hold {len(sources)} sources{why}; put {_SOURCE} into the name, such "
            f"as {output_from(_with_source(text)).name}{folder}"
        )


def _with_source(text: str) -> str:
    """Return the name with a place for the source's name in it."""
    if is_uri(text):
        head, mark, options = text.partition("?")
        return f"{head.rstrip('/')}-{_SOURCE}{mark}{options}"
    path = Path(text)
    return str(path.with_name(f"{path.stem}-{_SOURCE}{path.suffix}"))
