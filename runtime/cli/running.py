"""A run of `sfpp-run`: what is opened, what is refused, and what is said of it."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfpp.runtime.cli.console import is_quiet, report
from sfpp.runtime.cli.reporter import Reporter, announce, note, print_written, self_test_line, warn
from sfpp.runtime.cli.stopping import SIGNALED, stop_on_signals
from sfpp.runtime.contract import ModelContract, Task, read_contract_file
from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.files import identity
from sfpp.runtime.model import Model, OpenedModel
from sfpp.runtime.model_file import contract_of, load
from sfpp.runtime.motion.options import KeyEvery, Motion, check_logits
from sfpp.runtime.motion.trial import Trial, can_try
from sfpp.runtime.people import BoxesFile, FollowedPose, choose_finder
from sfpp.runtime.people.motion import check_motion
from sfpp.runtime.pose import PoseEstimator
from sfpp.runtime.segmentation import Segmenter
from sfpp.runtime.self_test import self_test
from sfpp.runtime.tensorrt.sidecar import files_of_model
from sfpp.runtime.video.delivery import Delivery
from sfpp.runtime.video.frame import Source
from sfpp.runtime.video.mailbox import Policy
from sfpp.runtime.video.outputs import Outputs, Plan, Sinks, plan_outputs
from sfpp.runtime.video.pipeline import Pipeline, check_live
from sfpp.runtime.video.readers import expected_frames
from sfpp.runtime.video.sources.address import is_uri
from sfpp.runtime.video.sources.opening import (
    check_given_once,
    each_source,
    missing_source,
    names_apart,
    open_source,
    reads_files,
)
from sfpp.runtime.viewer.token import VARIABLE

if TYPE_CHECKING:
    from sfpp.runtime.viewer import Viewer

_POLICY_WORDS: dict[Policy, str] = {
    "follow": "frames are shown at once, with the newest labels carried to them",
    "freshest": "frames that are old by the time the model is free are dropped",
    "every-frame": "no frame is dropped, and the sources wait",
}

# By name of the attribute. Their default is None, so that it can be told whether they were given; the library's
# functions have the real defaults.
_TASK_OPTIONS: dict[Task, tuple[str, ...]] = {
    "segmentation": ("masks", "alpha", "legend"),
    "pose": ("detector", "boxes", "person", "person_class", "detect_every", "threshold", "flip_test", "keypoints_json"),
}


def run(arguments: argparse.Namespace) -> int:
    """Do what the options of a command line say, and return the exit code; raises SfppError."""
    if not arguments.sources:
        with _loaded(arguments) as model:
            return 0 if _passes_self_test(model) else 1
    if (hint := _hint_of_second(arguments)) is not None:
        note(hint)
    reporter = Reporter()
    with contextlib.ExitStack() as stack:
        sources, broken = _opened(arguments, reporter, stack)
        # All that can be refused is refused before the model is opened, which may take a while.
        _check_sources(arguments, sources)
        Motion(smooth=arguments.smooth)
        plan = _plan(arguments, sources)
        _check_task(arguments, sources)
        model = _loaded(arguments)
        stack.callback(model.close)
        _check_task(arguments, sources, model.contract)
        if arguments.self_test and not _passes_self_test(model):
            return 1
        runs = _Runs(arguments, model, sources, plan, reporter, stack)
        return runs.together() if broken is None else runs.one_by_one(broken)


def _opened(
    arguments: argparse.Namespace, reporter: Reporter, stack: contextlib.ExitStack
) -> tuple[list[Source], list[str] | None]:
    """Open the sources; several files only to look at them, since there may be thousands.

    Returns:
        The sources, of different names; and where they run one after the other, as several files do, those that cannot
        be opened, which are no longer among the sources. None where all run at once.
    """
    texts = [each for text in arguments.sources for each in each_source(text)]
    if len(texts) < 2 or not all(map(reads_files, texts)):
        arguments.sources, broken = texts, None
        sources = _opened_together(texts, reporter, stack)
    else:
        arguments.sources, sources, broken = [], [], []
        for text in texts:
            try:
                with open_source(text) as source:
                    sources.append(source)
                    arguments.sources.append(text)
            except MediaError as error:  # noqa: PERF203 - each may fail
                broken.append(text)
                if len(broken) == len(texts):
                    raise
                note(f"error: {error}; the others go on")
    for source, name in zip(sources, names_apart(sources), strict=True):
        source.name = name
    return sources, broken


def _opened_together(texts: Sequence[str], reporter: Reporter, stack: contextlib.ExitStack) -> list[Source]:
    """Open sources that run at once; a camera that is not there is told, and ends no other.

    Raises:
        SfppError: none is there, or something else is wrong.
    """
    sources: list[Source] = []
    failed: list[MediaError] = []
    for text in texts:
        try:
            source = open_source(text, on_event=reporter.event)
        except MediaError as error:
            if not (is_uri(text) or text.isdecimal()):
                raise  # no camera comes and goes, and so it is a mistake
            failed.append(error)
            sources.append(missing_source(text))
            continue
        sources.append(stack.enter_context(source))
    none = len(failed) == len(texts)
    for each in failed[: len(failed) - none]:
        note(f"error: {each}{'' if none else '; the others go on'}")
    if none:
        raise failed[-1]
    return sources


def _plan(arguments: argparse.Namespace, sources: Sequence[Source]) -> Plan:
    check_given_once(arguments.sources, sources)
    overlays = tuple(arguments.outputs) or ((arguments.output,) if arguments.output is not None else ())
    return plan_outputs(
        Outputs(overlays, arguments.masks, arguments.json, arguments.snapshot, arguments.keypoints_json),
        sources,
        viewed=arguments.view is not None,
        by_position=arguments.output is not None,
        also_read=_files_read(arguments),
        max_frames=arguments.max_frames,
        notify=note,
        **_given(arguments, "every"),
    )


class _Runs:
    """The runs of one command: several files one after the other, all else at once.

    Args:
        arguments: of the command line.
        model: what is run.
        sources: opened, or closed again if they run one after the other.
        plan: what is written of them.
        reporter: knows of the sources' events already.
        stack: closes what is opened for all runs.

    Raises:
        SfppError: something cannot be opened.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        model: OpenedModel[Any],
        sources: Sequence[Source],
        plan: Plan,
        reporter: Reporter,
        stack: contextlib.ExitStack,
    ) -> None:
        self._arguments = arguments
        self._opened = model
        self._sources = sources
        self._plan = plan
        self._shared = plan.shared()
        self._reporter = reporter
        self._pipeline: Pipeline | None = None
        self._stopped = False
        # Standard output may be the place of the frames themselves.
        self._file = sys.stderr if plan.writes_to_standard_output() else sys.stdout
        self._found_by = ""
        self._image_ids: Mapping[str, int] = {}
        self._model = self._with_finder(stack)
        self._viewer = reporter.viewer = self._opened_viewer(stack)

    def one_by_one(self, broken: Sequence[str]) -> int:
        """Run files one after the other; a broken one ends no other, and all are named again at the end.

        Args:
            broken: those that could not even be opened.
        """
        failed = list(broken)
        with self._sinks() as sinks:
            for text, looked_at in zip(self._arguments.sources, self._sources, strict=True):
                try:
                    with open_source(text, on_event=self._reporter.event) as source:
                        source.name = looked_at.name
                        code = self._run([source], sinks)
                except MediaError as error:
                    note(f"error: {error}; the others go on")
                    failed.append(text)
                    continue
                if code or self._stopped:
                    return code
        print_written(self._shared, file=self._file)
        report(self_test_line(self._opened.self_test), file=self._file)
        total = len(self._sources) + len(broken)
        report(f"{total - len(failed)} of {total} sources are done", file=self._file)
        for text in failed:
            warn(f"not done: {text}")
        return 1 if failed else 0

    def together(self) -> int:
        """Run all sources at once, until they end, and return the exit code: 1 if one was not there."""
        with self._sinks() as sinks:
            return self._run(self._sources, sinks) or int(any(source.missing for source in self._sources))

    def stop(self) -> None:
        """End soon: a signal, a closed window or somebody at the page asks for it."""
        self._stopped = True
        if self._pipeline is not None:
            self._pipeline.stop()

    def _run(self, sources: Sequence[Source], sinks: Sinks) -> int:
        arguments, reporter = self._arguments, self._reporter
        trial = self._trial(sources)
        with contextlib.ExitStack() as stack:
            stop = stack.enter_context(stop_on_signals())
            pipeline = self._pipeline = stack.enter_context(
                Pipeline(
                    trial or self._model,
                    sources,
                    max_frames=arguments.max_frames,
                    on_event=reporter.event,
                    **_given(arguments, "policy", "key_every", "smooth", "still", "look_ahead", "every"),
                )
            )
            self._note_policy(pipeline)
            delivery = Delivery(
                {source.name: stack.enter_context(sinks.of(source)) for source in sources},
                style=_given(arguments, "alpha", "legend", "threshold"),
                viewer=self._viewer,
                self_test=self._opened.self_test,
                timer=pipeline.timer,
            )
            stack.enter_context(stop.stops(self.stop))
            with reporter.run(pipeline):
                for answer in pipeline:
                    reporter.saw(answer)
                    delivery.take(answer)
                    del answer  # the next one may be long in coming
        return self._reported(pipeline, stop.signal_number, None if trial is None else trial.advice(pipeline.timer))

    def _trial(self, sources: Sequence[Source]) -> Trial | None:
        """Return the model that also tries what key frames would bring, where that can be and somebody reads it."""
        model, arguments, (source, *others) = self._opened, self._arguments, sources
        first = source.name == self._sources[0].name  # of several files one will do
        moves = source.kind in ("video", "folder") and not source.live and not others
        plain = not any((arguments.key_every, arguments.smooth, arguments.still, arguments.policy == "freshest"))
        if is_quiet() or not (first and moves and plain) or not isinstance(model, Segmenter):
            return None
        expected = expected_frames(source, max_frames=arguments.max_frames, **_given(arguments, "every"))
        return Trial(model, expected) if can_try(model, expected) else None

    def _reported(self, pipeline: Pipeline, signal_number: int | None, advice: str | None) -> int:
        """Say what one run has done, and return the exit code."""
        alone = len(pipeline.sources) == len(self._sources)
        # Of several sources, one may not have been there.
        shown = [each for each in pipeline.sources if each.name in self._reporter.seen or len(pipeline.sources) == 1]
        given = (text for source in shown for text in self._plan.by_source[source.name].all())
        outputs = [text for text in dict.fromkeys(given) if alone or text not in self._shared]
        failed = self._reporter.unwritten(outputs)
        for line in failed.values():
            warn(line)
        state = self._opened.self_test if alone else None
        self._reporter.finish(pipeline, found_by=self._found_by, self_test=state, advice=advice, file=self._file)
        if any(each.name in self._reporter.seen for each in shown):
            print_written((text for text in outputs if text not in failed), file=self._file)
        if signal_number:
            return SIGNALED + signal_number
        return 1 if failed else 0

    def _sinks(self) -> Sinks:
        policy: Policy | None = self._arguments.policy
        return Sinks(
            self._plan,
            self._sources,
            policy=policy,
            audio=not self._arguments.no_audio,
            image_ids=self._image_ids,
            on_event=self._reporter.event,
            on_stop=self.stop,
        )

    def _with_finder(self, stack: contextlib.ExitStack) -> Model:
        """Return the model; a pose model with what finds the people, which serves one source after the other."""
        if not isinstance(self._opened, PoseEstimator):
            return self._opened
        finder, self._found_by = choose_finder(
            **_given(self._arguments, "detector", "boxes", "person", "person_class", "threads")
        )
        if isinstance(finder, BoxesFile):
            finder.fit(self._sources[0])  # there is one only
            self._found_by = f"people are found by {finder.description}"
            self._image_ids = finder.image_ids
        note(self._found_by)
        stack.callback(finder.close)
        return FollowedPose(self._opened, finder, **_given(self._arguments, "detect_every", "threshold"))

    def _opened_viewer(self, stack: contextlib.ExitStack) -> Viewer | None:
        if self._arguments.view is None:
            return None
        from sfpp.runtime.viewer import Viewer

        host, port = self._arguments.view
        token, token_file = self._arguments.token, self._arguments.token_file
        if token is not None:
            warn("other users of this machine see --token in the list of processes; --token-file hides it")
        viewer = Viewer(self._opened, host=host, port=port, token=token, token_file=token_file, on_stop=self.stop)
        stack.enter_context(viewer)
        announce(_opened_at(viewer.url, self._arguments))
        return viewer

    def _note_policy(self, pipeline: Pipeline) -> None:
        """Say what becomes of frames for which there is no time, where that is not plain: files lose none."""
        if self._arguments.policy is None and not any(source.live for source in pipeline.sources):
            return
        waiting = [source.name for source in pipeline.sources if pipeline.policy_of(source) == "every-frame"]
        waiting = waiting if pipeline.policy != "every-frame" else []
        but = f", but none of {', '.join(waiting)}" if waiting else ""
        note(f"policy {pipeline.policy}: {_POLICY_WORDS[pipeline.policy]}{but}")


def _opened_at(url: str, arguments: argparse.Namespace) -> str:
    """Say where the page is; a token that came by a file or the environment stays out of what may go into a log."""
    address, token, _ = url.partition("?token=")
    if not token or arguments.token is not None:
        return f"open {url} in a browser"
    if arguments.token_file is not None:
        return f"open {address}?token=TOKEN in a browser, with the token in {arguments.token_file} for TOKEN"
    if VARIABLE in os.environ:
        return f"open {address}?token=TOKEN in a browser, with the token in {VARIABLE} for TOKEN"
    return f"open {url} in a browser"


def _loaded(arguments: argparse.Namespace) -> OpenedModel[Any]:
    return load(
        arguments.model,
        contract=read_contract_file(arguments.contract) if arguments.contract else None,
        backend=arguments.backend,
        precision=arguments.precision,
        threads=arguments.threads,
        build=arguments.build,
        host_code=arguments.host_code,
        schedule=arguments.schedule,
        zero_copy=arguments.zero_copy,
        flip_test=bool(arguments.flip_test),
        # Asked for, it comes right after: in a library that was named, no other one would take over before.
        self_test=arguments.self_test is None or (arguments.self_test and arguments.backend is None),
        notify=note,
    )


def _passes_self_test(model: OpenedModel[Any]) -> bool:
    """Replay the model's own frame, print how that came out, and return whether it is as expected."""
    result = self_test(model)
    model.self_test = result.state
    print(result.text())
    return result.passed


def _hint_of_second(arguments: argparse.Namespace) -> str | None:
    """Return what to say of a second source that may have been meant for an output, as it was when it was new.

    Returns:
        None where nothing else can have been meant.
    """
    if len(arguments.places) != 2 or len(arguments.sources) != 2 or arguments.outputs or arguments.view is not None:
        return None
    first, second = map(Path, arguments.places)
    if is_uri(arguments.places[1]) or not second.exists() or identity(first) == identity(second):
        return None
    how = "into" if second.is_dir() else "over"
    return f"{second} exists, so it is one more source; to write {how} it, say -o {second}"


def _check_task(
    arguments: argparse.Namespace, sources: Sequence[Source], contract: ModelContract | None = None
) -> None:
    """Refuse options that mean nothing for the model.

    Args:
        arguments: of the command line.
        sources: opened, or closed again.
        contract: the model's; None reads it from the file, without opening that, and checks nothing if it carries none.

    Raises:
        UsageError: there are some.
        ContractError: the contract that was given as a file is none.
    """
    if contract is None:
        contract = read_contract_file(arguments.contract) if arguments.contract else contract_of(arguments.model)
    if contract is None:
        return
    for other, options in _TASK_OPTIONS.items():
        foreign = [
            "--no-legend" if name == "legend" else f"--{name.replace('_', '-')}" for name in _given(arguments, *options)
        ]
        if other != contract.task and foreign:
            are = "are" if len(foreign) > 1 else "is"
            raise UsageError(
                f"{', '.join(foreign)} {are} for {other} models, but {arguments.model} is a {contract.task} model; "
                "leave it out, or give another model"
            )
    if arguments.policy == "follow":
        check_logits(contract, wanted="--policy follow")
    if contract.task == "pose":
        motion = Motion(arguments.key_every or KeyEvery(1), arguments.smooth, bool(arguments.still))
        check_motion(motion, waits=arguments.look_ahead is not False and not any(each.live for each in sources))
        return
    wanted = {"--smooth": arguments.smooth, "--key-every": arguments.key_every, "--still": arguments.still}
    for name in (name for name, value in wanted.items() if value):
        check_logits(contract, wanted=name)


def _check_sources(arguments: argparse.Namespace, sources: Sequence[Source]) -> None:
    """Refuse options that mean nothing for the sources, opened or closed again.

    Raises:
        UsageError: there are some.
    """
    if len(arguments.sources) > 1 and arguments.boxes is not None:
        raise UsageError(
            f"--boxes tells the frames of one source, and there are {len(arguments.sources)}; run them one by one, or "
            "pictures as a folder or a pattern"
        )
    if arguments.policy == "follow":
        check_live(sources)


def _files_read(arguments: argparse.Namespace) -> list[str]:
    """Return the files beside the sources that the options name for reading."""
    others = _given(arguments, "contract", "detector", "boxes").values()
    return [*map(str, files_of_model(Path(arguments.model))), *others]


def _given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return those of the named options that were given, as arguments for a function that has the defaults."""
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}
