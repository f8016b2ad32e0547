"""The self-test in a model file: one small frame is replayed, and the answer compared with the one that is expected.

A new driver, TensorRT or JetPack may break a model without a word: it runs, and answers wrongly. Libraries have faults
that show on some processors only. So an export stores a frame and its answer in the contract, and the file, or whatever
was made of it, replays them the first time that it runs with a backend, a version, a precision, a kind of CPU and a
card. A pass is remembered in the user's cache folder, and from then on costs a look at a file; a failure is found again
each time, and the next backend takes over.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.agreement import label_agreement, mask_agreement, unmoved_keypoints
from sfpp.runtime.backends import Choice, Notify
from sfpp.runtime.backends.protocol import PRECISION_WORDS, WARNING, say
from sfpp.runtime.cache import cache_folder, forget_oldest, is_own
from sfpp.runtime.contract import ModelContract, SelfTest, Task
from sfpp.runtime.crops import Boxes, box_of_crop
from sfpp.runtime.errors import ContractError, MissingDependencyError, SelfTestError, SfppError, UsageError
from sfpp.runtime.images import Image, bgr_from_frame
from sfpp.runtime.machine import cpu_kind, gpu_kind
from sfpp.runtime.model import OpenedModel, SelfTestState
from sfpp.runtime.pose import PoseEstimator
from sfpp.runtime.self_test_data import MOST_MASKS, packed, small_frame, unpacked

Model = OpenedModel[Any]
# By how much a sound run may miss the agreement that is known to be reached, by what is computed in. Measured against
# ONNX Runtime with the demonstration models and 22 frames: in OpenVINO 99.9 % of the labels agree at least in float32
# and 96.0 % in bfloat16 (88.3 % at 320x192, where merging leaves few tokens), with every value rounded to float16
# 99.7 %; INT8 differs by 0.1 %. No keypoint moves in float32, and one of seven in bfloat16. What is broken has to fall
# short: on the stored frame red and blue exchanged leave 44 % of the labels, a wrong std 90 %, one block with weights
# of zero 97.0 % at most; of the keypoints 44 %, 78 % and 92 %.
_SLACK: dict[Task, dict[str, float]] = {
    "segmentation": {"fp32": 0.02, "fp16": 0.03, "int8": 0.04, "bf16": 0.12},
    "pose": {"fp32": 0.02, "fp16": 0.12, "int8": 0.2, "bf16": 0.22},
}
# A heatmap without its keypoint has a maximum below this, somewhere. At 0.3, where skeletons are drawn from, four of
# the stored person's fourteen keypoints would count, and those stay where they are in many a broken model.
_LEAST_SCORE = 0.1
_LOGGER = logging.getLogger("sfpp")
_KEPT = 1024  # passes, each an empty file
_T = TypeVar("_T")


@dataclass(frozen=True)
class SelfTestResult:
    """What a self-test found.

    Attributes:
        agreement: the share, 0..1, of labels or keypoints that are as expected.
        threshold: the share that a sound run reaches, in what was computed in.
        compared: what was compared, for people.
        model: the model and the library that ran it, for people.
        advice: what to do about a failure, the likeliest first.
    """

    agreement: float
    threshold: float
    compared: str
    model: str
    advice: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether enough is as expected."""
        return self.agreement >= self.threshold

    @property
    def state(self) -> SelfTestState:
        """What the model is to know of it."""
        detail = f"{self.agreement:.2%} of {self.compared} as exported, {self.threshold:.2%} expected at least"
        return SelfTestState("passed" if self.passed else "failed", self.agreement, detail)

    def text(self) -> str:
        """Return what was compared, how it came out and, after a failure, what to do."""
        said = f"self-test {self.state.outcome}: {self.state.detail} ({self.model})"
        return said if self.passed else f"{said}. Do not trust its answers here: {'; '.join(self.advice)}"


def self_test(model: Model) -> SelfTestResult:
    """Replay the frame that the model's contract carries, and compare the answer with the expected one.

    Labels are compared pixel by pixel; of keypoints those that were found when the model was exported, each of which
    must be where it was. The flip test is left out. Where the library computes in less than the file does, as in
    bfloat16, less agreement is asked for.

    Raises:
        UsageError: the contract carries no self-test.
        ContractError: it is damaged, or is not this model's.
        BackendError, ModelFileError: the model fails, answers with NaN, or does not give what its contract says.
    """
    contract = model.contract
    test = contract.self_test
    if test is None:
        raise UsageError(
            f"this model carries no self-test ({model.description}); export it again with this version of sfpp, and "
            "calibrate it or build its engine again from that file"
        )
    frame_bgr, expected = unpacked(test, contract)
    agreement, compared = _compared(_answer(model, frame_bgr), expected, contract, frame_bgr)
    computed_in = model.precision
    return SelfTestResult(
        agreement=agreement,
        threshold=_threshold_in(computed_in, test.threshold, contract),
        compared=compared,
        model=model.description,
        advice=tuple(_advice(contract, computed_in)),
    )


def self_test_for(model: Model, frame_bgr: NDArray[Any], threshold: float) -> SelfTest:
    """Make the self-test of a model that is known to answer rightly.

    Args:
        model: as a rule the exported file, computing in float32.
        frame_bgr: (H, W, 3) uint8 BGR, or grey or BGRA, of which a small version is stored: its middle, in the aspect
            ratio of the model's input. For pose, one person fills it.
        threshold: agreement, 0..1, below which the test shall fail; see :func:`threshold_for`.

    Raises:
        MediaError: not an image.
        ContractError: a threshold outside 0..1.
        BackendError, ModelFileError: as for :func:`self_test`.
    """
    small_bgr = small_frame(bgr_from_frame(frame_bgr), model.contract.input)
    return packed(small_bgr, _answer(model, small_bgr), threshold=threshold)


def threshold_for(contract: ModelContract, agreement: float = 1.0) -> float:
    """Return the threshold for a file that reached this agreement in a library that is trusted."""
    return round(max(0.0, agreement - _SLACK[contract.task].get(contract.precision, 0.0)), 4)


def _threshold_in(computed_in: str, threshold: float, contract: ModelContract) -> float:
    """Return the threshold where the library computes in this: a lower one if that is less than the file's own."""
    slack = _SLACK[contract.task]
    own = slack.get(contract.precision, 0.0)
    return max(0.0, threshold - max(0.0, slack.get(computed_in, own) - own))


def _advice(contract: ModelContract, computed_in: str) -> Iterator[str]:
    if contract.engine is not None:
        yield "build the engine again on this machine with sfpp-engine"
    elif computed_in != "fp32":
        words = PRECISION_WORDS.get(computed_in, computed_in)
        yield f"see with --precision fp32 whether it is {words} that the model does not bear"
    yield "choose another library for the .onnx file with --backend"
    yield "compare it with its weights, part by part, with sfpp-parity"
    yield "if that finds nothing, report what was updated last"


def _answer(model: Model, frame_bgr: Image) -> NDArray[Any]:
    """Return labels (h, w) uint8, masks (K, h, w) uint8 of the first classes, or keypoints.

    Those are (K, 3) float32, x, y and score, of the one person in the frame.
    """
    if not isinstance(model, PoseEstimator):
        found = model(frame_bgr)
        labels: NDArray[np.uint8] = found.labels if found.masks is None else found.masks[:MOST_MASKS]
        return labels
    pose = _without_flip_test(model)(frame_bgr, _box(model.contract, frame_bgr))
    return np.concatenate([pose.keypoints_xy[0], pose.scores[0, :, np.newaxis]], axis=1)


def _without_flip_test(model: PoseEstimator) -> PoseEstimator:
    """Return the model as it was exported: the average with the mirror image lies elsewhere by a little."""
    plain = copy.copy(model)
    plain.flip_test = False
    return plain


def _compared(
    answer: NDArray[Any], expected: NDArray[Any], contract: ModelContract, frame_bgr: Image
) -> tuple[float, str]:
    """Return the share of the answer that is as expected, 0..1, and what was compared, in words."""
    height, width = frame_bgr.shape[:2]
    frame = f"a stored frame of {width}x{height} pixels"
    if contract.multi_label:
        return mask_agreement(answer, expected), f"the masks of {frame}"
    if contract.task == "segmentation":
        return label_agreement(answer, expected), f"the labels of {frame}"
    found = expected[:, 2] >= _LEAST_SCORE
    # A network that is sure of nothing is compared by its noise rather than not at all.
    found = found if found.any() else np.ones_like(found)
    places, expected_places = (each[np.newaxis, found, :2] for each in (answer, expected))
    unmoved = unmoved_keypoints(places, expected_places, _box(contract, frame_bgr))
    return float(unmoved.mean()), f"the {found.sum()} keypoints in {frame}"


def _box(contract: ModelContract, frame_bgr: Image) -> Boxes:
    """Return the box, (1, 4), of the person who fills the frame."""
    assert contract.keypoints is not None, "a pose estimator has keypoints"
    height, width = frame_bgr.shape[:2]
    return box_of_crop((height, width), padding=contract.keypoints.box_padding)


def first_that_answers(
    path: Path,
    choices: Sequence[Choice],
    open_with: Callable[[Choice], tuple[_T, str]],
    *,
    model_of: Callable[[_T], Model | None],
    replay: bool,
    notify: Notify | None,
) -> tuple[_T, Choice]:
    """Open a file with the first of the backends that answers as the model did when it was exported, and say which.

    One that was asked for is taken whatever it answers, with a warning each time: whoever asks may know better.

    Args:
        path: the file.
        choices: the backends, the preferred one first.
        open_with: opens the file with one of them; returns what it has opened, and in which library it runs and why.
        model_of: the model in that, None where nothing is known of the file.
        replay: whether self-tests are replayed at all.
        notify: called with the same lines as the logger ``sfpp``, for a command to print.

    Returns:
        What was opened, its model knowing its ``self_test``, and the choice.

    Raises:
        SelfTestError: none of the backends answers as the model did.
        SfppError: the first one cannot be opened.
    """
    left = deque(choices)
    wrong: list[str] = []
    agreements: list[float] = []
    while left:
        choice = left.popleft()
        try:
            opened, reason = open_with(choice)
        except SfppError as error:
            if not wrong:
                raise
            wrong.append(f"{choice.name} cannot take over ({error})")
            continue
        model, line = model_of(opened), ""
        if model is not None and replay:
            try:
                model.self_test, line = _tested(model, path)
            except BaseException:
                model.close()
                raise
        if model is None or choice.asked or model.self_test.outcome != "failed":
            said = f"{path.name} runs in {reason}"
            if model is not None and wrong:
                said = f"{WARNING}{path.name} runs in {model.library}: chosen because {' and '.join(wrong)}"
            for each in filter(None, (said, line)):
                say(each, notify)
            return opened, choice
        model.close()
        state = model.self_test
        wrong.append(f"{model.library} answers wrongly here ({state.detail})")
        agreements += [] if state.agreement is None else [state.agreement]
        if model.precision == "bf16" and choice.options.precision is None:
            # Nobody asked for it, and the same library in float32 is the least change.
            left.appendleft(replace(choice, options=replace(choice.options, precision="fp32")))
    raise SelfTestError(path.name, answers=wrong, agreement=max(agreements, default=None))


def _tested(model: Model, path: Path) -> tuple[SelfTestState, str]:
    """Replay the self-test of a model that has not passed it here yet; return how it stands, and a line about it."""
    if model.contract.self_test is None:
        detail = "carries no self-test, so nobody knows whether it answers here as it did when it was exported"
        _LOGGER.info(f"{path.name} {detail}")
        return SelfTestState("not carried", detail=detail), ""
    place = _pass_file(model, path)
    if place is not None and place.is_file() and is_own(place):
        return SelfTestState("passed"), ""
    try:
        result = self_test(model)
    except ContractError as error:
        return SelfTestState("damaged", detail=str(error)), f"{WARNING}{path.name}: {error}"
    except MissingDependencyError as error:  # OpenCV, without which no frame can be given to it either
        return SelfTestState("off", detail=str(error)), ""
    except SfppError as error:
        return SelfTestState("failed", detail=str(error)), f"{WARNING}{path.name}: self-test failed: {error}"
    if not result.passed:
        return result.state, f"{WARNING}{path.name}: {result.text()}"
    return result.state, f"{path.name}, first use here: {result.text()}" if _remember(place) else ""


def _pass_file(model: Model, path: Path) -> Path | None:
    """Return the file that says that the model has passed here; None where none can be.

    Its name stands for the file, for what is made of it, and for what an update or another machine changes: the
    description has library, version and, of an engine, card and driver.
    """
    try:
        # The content's hash would take a second for a large model. No program can set the time of the last change.
        file = path.stat()
        stamp = (str(path.resolve()), file.st_size, file.st_mtime_ns, file.st_ctime_ns)
        runs = (model.description, model.precision, cpu_kind(), gpu_kind())
        # In the contract's text the self-test stands for itself by its hash.
        name = hashlib.sha256(repr((stamp, runs, model.contract)).encode("utf-8", "replace")).hexdigest()
    except OSError:
        return None
    folder = cache_folder("self-tests")
    return folder and folder / name[:32]


def _remember(place: Path | None) -> bool:
    """Keep a pass, and of all passes those that are youngest; return whether that was possible."""
    if place is None:
        return False
    try:
        place.touch()
    except OSError:
        return False
    with contextlib.suppress(OSError):  # another process may do the same
        forget_oldest(place.parent, kept=_KEPT)
    return True
