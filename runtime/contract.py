"""What a model file promises: the facts a runtime needs, carried inside the file itself.

The contract is JSON under the key ``sfpp.contract`` of an ONNX file's ``metadata_props``, or in ``NAME.json`` beside an
engine. Whoever opens the model reads it and never guesses.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from sfpp.runtime.errors import ContractError
from sfpp.runtime.typed_json import dataclass_from_json, json_from_file, json_from_text, name_fault, text_fault

METADATA_KEY = "sfpp.contract"
SCHEMA_VERSION = 1

Task = Literal["segmentation", "pose"]
Layout = Literal["NHWC", "NCHW", "NV12"]
Matrix = Literal["bt601", "bt709"]
InputDtype = Literal["uint8", "float32"]
ColorOrder = Literal["RGB", "BGR"]
ResizeRule = Literal["letterbox", "pad", "stretch"]
Interpolation = Literal["area", "linear", "antialias"]
OutputKind = Literal["logits", "labels", "masks", "heatmaps"]
Decoding = Literal["quarter"]
MatchingRule = Literal["exact", "local"]
FloatType = Literal["fp32", "fp16"]
# What an exported graph is written for. A contract may name one that a later version knows, so there it is any text.
Target = Literal["portable", "onnxruntime", "openvino", "tensorrt"]

# Characters of either text of a self-test; those that an export writes have 40 000 at most.
_LONGEST_SELF_TEST = 100_000
_MOST_PIXELS = 2**31  # in a batch
_PADDING = (0.01, 100)  # of a box; beyond, its sides are none or endless
MOST_CLASSES = 256  # labels are uint8
MOST_CHANNELS = 64  # of an input: a hyperspectral camera's, and not a mistake's

_T = TypeVar("_T")


@dataclass(frozen=True)
class InputSpec:
    """The one input tensor: (batch, height, width, channels) for NHWC, (batch, channels, height, width) for NCHW.

    NV12 is (batch, height * 3 / 2, width) uint8: ``height`` rows of luma above half as many in which U and V take
    turns, of limited range. ``matrix`` says how its colors are coded; the graph makes colors of them in
    ``color_order``. With another layout, ``matrix`` says that colors went through such NV12 before.

    ``mean`` and ``std``, one number a channel, are on the 0..255 scale, in ``color_order``. When
    ``normalized_in_graph`` is true the graph takes raw values 0..255 and applies them itself; otherwise the runtime
    does, which needs float32. Other than 3 ``channels`` are float32 and NCHW: of one the runtime makes a grey image,
    more are fed by the program itself.

    ``resize`` says where a frame lies in the input, ``interpolation`` how it is resized to that: ``area`` is OpenCV's
    bilinear, or the mean over the area from half the size on; ``linear`` OpenCV's bilinear at every size, as mmcv has
    it; ``antialias`` a triangle filter as wide as the frame is shrunk, as Pillow and torchvision have it.

    With ``open_batch`` a run takes any number of frames from 1 to ``batch``, else exactly ``batch``.
    """

    name: str
    height: int
    width: int
    batch: int = 1
    layout: Layout = "NHWC"
    dtype: InputDtype = "uint8"
    color_order: ColorOrder = "RGB"
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    normalized_in_graph: bool = True
    resize: ResizeRule = "letterbox"
    channels: int = 3
    interpolation: Interpolation = "area"
    matrix: Matrix | None = None
    open_batch: bool = False

    def rows(self, frames: int) -> int:
        """Return how many frames a run takes in, of which so many are wanted: with a fixed batch, all of it."""
        return frames if self.open_batch else self.batch

    def is_batch(self, rows: int) -> bool:
        """Whether a run may take so many frames."""
        return 1 <= rows <= self.batch and self.rows(rows) == rows

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape in the order of its layout, with the largest batch."""
        if self.layout == "NV12":
            return self.batch, self.height * 3 // 2, self.width
        if self.layout == "NHWC":
            return self.batch, self.height, self.width, self.channels
        return self.batch, self.channels, self.height, self.width


@dataclass(frozen=True)
class OutputSpec:
    """One output tensor.

    ``logits`` is (batch, classes, h, w) float32 with h = ceil(height / stride), or one less where a network that halves
    its input drops the last row; ``labels`` is (batch, height, width) uint8, of stride 1; ``masks``, of a multi-label
    model, is (batch, classes, height, width) uint8, 0 or 1, of stride 1; ``heatmaps`` is (batch, keypoints, h, w)
    float32, about 1 where a keypoint is sure. ``align_corners`` says that the logits at the corners lie on the image's
    corner pixels when they are upsampled, rather than half a cell inside. ``through_input`` says that they are
    upsampled to the input's size first and from there to the frame's, and not at once.
    """

    name: str
    kind: OutputKind
    stride: int
    align_corners: bool = False
    through_input: bool = False


@dataclass(frozen=True)
class KeypointSpec:
    """The keypoints of a pose model, and how they are read from heatmaps.

    ``skeleton`` holds the limbs and ``flip_pairs`` the keypoints that change places in a mirror, left one first; both
    are pairs of indices into ``names``. A person's box is grown by ``box_padding`` before it is cropped. ``quarter``
    decoding takes the heatmap's maximum, moved a quarter cell towards the higher neighbor on each axis.

    Raises:
        ContractError: no name, one twice or one that is no text, an index out of range, a limb twice, a keypoint in two
            flip pairs.
    """

    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] = ()
    decoding: Decoding = "quarter"
    box_padding: float = 1.25

    def __post_init__(self) -> None:
        if problems := _keypoint_problems(self):
            raise ContractError(f"the keypoints cannot be right: {'; '.join(problems)}")

    @property
    def flip_indices(self) -> tuple[int, ...]:
        """For each keypoint the one that it becomes in a mirror; itself where it lies in the middle."""
        indices = list(range(len(self.names)))
        for left, right in self.flip_pairs:
            indices[left], indices[right] = right, left
        return tuple(indices)


@dataclass(frozen=True)
class CalibrationRecord:
    """How a file of lower precision was made: enough to make the same one again, and to tell whether it is out of date.

    Attributes:
        model_sha256: of the float32 file that it was made from.
        frames_sha256: of the frames that it was calibrated with, as they were fed to the model; of nothing if
            ``frames`` is 0.
        frames: how many there were.
        selection: how they were chosen from the source, ``random`` or ``diverse``.
        seed: of the choice.
        method: how the ranges of INT8 were chosen: ``minmax``, ``entropy`` or ``percentile``; empty for FP16.
        rest: what is computed in where INT8 is not.
        kept: nodes that were kept in more precision, as measured.
        equalized: channels inside were scaled by powers of two; what comes out is the same to the bit.
    """

    model_sha256: str
    frames_sha256: str
    frames: int
    selection: str = "random"
    seed: int = 0
    method: str = ""
    rest: FloatType = "fp32"
    kept: tuple[str, ...] = ()
    equalized: bool = False


@dataclass(frozen=True)
class EngineRecord:
    """What an engine was built with and for, since an engine runs only where that is the same.

    Attributes:
        library: ``tensorrt`` or ``tensorrt-rtx``.
        version: of the library, such as ``10.3.0``; some versions name a fourth number.
        devices: compute capabilities that it was built for, such as ``sm86``; none for an engine that is portable
            between cards.
        card: name of the card that it was built on; empty where there was none.
        platform: operating system and processor, such as ``linux-aarch64``.
        onnx_sha256: of the file that it was built from.
        version_compatible: later versions of the library may run it.
        hardware_compatible: cards of later generations may run it.
        same_capability: all cards of these compute capabilities may run it, whatever their size.
        dla: the deep learning accelerator that it was built for, None for the GPU.
        multiprocessors: how many the card had; None where there was none. Modules of one name differ in it, and a
            Jetson's power mode turns some off.
    """

    library: str
    version: str
    devices: tuple[str, ...]
    card: str
    platform: str
    onnx_sha256: str
    version_compatible: bool = False
    hardware_compatible: bool = False
    dla: int | None = None
    same_capability: bool = False
    multiprocessors: int | None = None


@dataclass(frozen=True)
class SelfTest:
    """One small frame and the answer that is expected for it; :mod:`sfpp.runtime.self_test` makes and replays it.

    Attributes:
        frame: a PNG, in base64; its aspect ratio is that of the model's input.
        answer: what the float32 file answered when it was exported: labels (h, w) uint8 at the frame's size, or
            keypoints (K, 3) float32, x and y in the frame's pixels and score; packed by zlib, in base64.
        sha256: of the two texts, by which damage is told.
        threshold: agreement, 0..1, below which the test has failed.

    Raises:
        ContractError: texts that are too long, or a threshold that is no share.
    """

    frame: str = field(repr=False)
    answer: str = field(repr=False)
    sha256: str
    threshold: float

    def __post_init__(self) -> None:
        if max(len(self.frame), len(self.answer)) > _LONGEST_SELF_TEST:
            raise ContractError(
                f"the self-test has {len(self.frame)} and {len(self.answer)} characters, expected at most "
                f"{_LONGEST_SELF_TEST} each; export the model again"
            )
        if not 0 <= self.threshold <= 1:
            raise ContractError(
                f"the self-test's threshold is {self.threshold}, expected 0 to 1; export the model again"
            )


@dataclass(frozen=True)
class ModelContract:
    """Everything a model file says about itself; immutable, and the same after a trip through JSON.

    ``recipe`` holds one dictionary a stage in the words of the SegFormer++ authors (``q_mode``, ``kv_r``, ...), empty
    where a stage does not merge. A segmentation model has ``classes``, and in ``palette`` an (R, G, B) color, 0..255,
    for each; a pose model has ``keypoints``. ``matching`` says whether merged tokens were looked for everywhere or
    nearby, and ``share_matching`` how many blocks of a stage use one matching (0: all). ``threshold`` is, of a network
    with a sigmoid, the probability over which a pixel is a class, and None where the largest logit wins. A network with
    one output has two classes: the sigmoid of logit 1 is the probability, and logit 0 that of the threshold everywhere.
    With ``multi_label`` each class has a sigmoid, and a pixel any number of classes. ``multiply_adds`` of one run
    are those of matrix products and convolutions; ``activation_bytes`` is what all nodes read and write, weights left
    out, before any fusion; ``live_bytes`` is the most that is alive of it at one time. All are None where nobody
    counted. ``weights_key`` is which network of its checkpoint it is, empty where that held no other.
    """

    task: Task
    family: str
    size: str
    variant: str
    input: InputSpec
    outputs: tuple[OutputSpec, ...]
    classes: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()
    keypoints: KeypointSpec | None = None
    recipe: tuple[dict[str, Any], ...] = ({}, {}, {}, {})
    matching: MatchingRule = "exact"
    share_matching: int = 1
    threshold: float | None = None
    multi_label: bool = False
    precision: str = "fp32"
    calibration: CalibrationRecord | None = None
    engine: EngineRecord | None = None
    self_test: SelfTest | None = None
    target: str = "portable"
    opset: int = 17
    multiply_adds: int | None = None
    activation_bytes: int | None = None
    live_bytes: int | None = None
    checkpoint_sha256: str = ""
    weights_key: str = ""
    licence: str = ""
    sfpp_version: str = ""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        _check_values(self)

    def output_of_kind(self, *kinds: OutputKind) -> OutputSpec:
        """Return the first output whose kind is one of ``kinds``.

        Raises:
            ContractError: the model has no such output.
        """
        for output in self.outputs:
            if output.kind in kinds:
                return output
        have = ", ".join(output.kind for output in self.outputs)
        raise ContractError(f"the model has the outputs {have}, but {' or '.join(kinds)} is needed here")

    def to_json(self) -> str:
        """Return the contract as one line of JSON."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, separators=(",", ":"))


def contract_from_metadata(metadata: Mapping[str, str], *, origin: str, instead: str) -> ModelContract:
    """Read the contract in a model file's metadata.

    Args:
        metadata: the file's texts by name.
        origin: the file's name, for messages.
        instead: ends the message where there is none: how the facts can be given.

    Raises:
        ContractError: there is none, or it cannot be read.
    """
    text = metadata.get(METADATA_KEY)
    if text is None:
        raise ContractError(
            f"{origin} carries no contract (metadata {METADATA_KEY!r}), so nobody knows what it takes and gives; "
            f"export it with sfpp-export, or give the facts {instead}"
        )
    return contract_from_json(text, origin=f"the contract in {origin}")


def contract_from_json(text: str, *, origin: str = "the contract") -> ModelContract:
    """Read a contract; ``origin`` names the file in messages.

    Fields that this version does not know are ignored as long as the schema version is known.

    Raises:
        ContractError: not JSON, a newer schema, a missing field, or a value of the wrong type or range.
    """
    fields = json_from_text(text, where=origin, raising=ContractError, advice="export the model again")
    return _contract_from_fields(fields, origin=origin)


def _contract_from_fields(fields: Any, *, origin: str) -> ModelContract:
    if not isinstance(fields, dict):
        raise ContractError(f"{origin} must be a JSON object, not {type(fields).__name__}")
    version = fields.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ContractError(f"{origin} has no valid schema_version (found {version!r}); export the model again")
    if version > SCHEMA_VERSION:
        raise ContractError(
            f"{origin} has schema version {version}, and this sfpp reads up to {SCHEMA_VERSION}: "
            "upgrade sfpp on this machine, or export the model again with this version"
        )
    return dataclass_from_json(ModelContract, fields, where=origin)


def read_contract_file(path: str | os.PathLike[str]) -> ModelContract:
    """Read a contract from a JSON file, for a model file that carries none.

    Raises:
        ContractError: the file cannot be read, or is not a contract that this version knows.
    """
    fields = json_from_file(Path(path), where=f"the contract {os.fspath(path)}", raising=ContractError)
    return _contract_from_fields(fields, origin=os.fspath(path))


def _check_values(contract: ModelContract) -> None:
    """Refuse numbers that no model can mean, before they become shapes and indices."""
    spec, classes, kinds = contract.input, len(contract.classes), [output.kind for output in contract.outputs]
    size = f"input size {spec.batch}x{spec.height}x{spec.width}"
    normalizes = all(map(math.isfinite, spec.mean)) and all(0 < value < math.inf for value in spec.std)
    is_pose = contract.task == "pose"
    wrong = {
        f"{size} must be positive": min(spec.height, spec.width, spec.batch) < 1,
        f"{size} is more than fits into memory": spec.batch * spec.height * spec.width > _MOST_PIXELS,
        f"there are {spec.channels} input channels, expected 1 to {MOST_CHANNELS}": (
            not 1 <= spec.channels <= MOST_CHANNELS
        ),
        f"{len(spec.mean)} values of mean and {len(spec.std)} of std for {spec.channels} channels": (
            not len(spec.mean) == len(spec.std) == spec.channels
        ),
        f"{spec.channels} input channels need float32 and NCHW; uint8 or NHWC is for the 3 of a color frame": (
            spec.channels != 3 and (spec.dtype, spec.layout) != ("float32", "NCHW")
        ),
        "NV12 needs uint8, a matrix (bt601 or bt709), and even height and width": spec.layout == "NV12"
        and (spec.dtype != "uint8" or spec.matrix is None or spec.height % 2 == 1 or spec.width % 2 == 1),
        "mean must be finite and std positive": not normalizes,
        "an input of type uint8 cannot hold normalized values, so the graph must normalize": (
            spec.dtype == "uint8" and not spec.normalized_in_graph
        ),
        "there must be at least one output": not kinds,
        "an output's stride must be at least 1": any(output.stride < 1 for output in contract.outputs),
        f"there are {classes} classes, expected 1 to {MOST_CLASSES} (labels are uint8)": (
            not is_pose and not 1 <= classes <= MOST_CLASSES
        ),
        "a pose model needs the 3 channels of a color frame": is_pose and spec.channels != 3,
        "heatmaps are never upsampled, so align_corners and through_input say nothing of them": any(
            output.kind == "heatmaps" and (output.align_corners or output.through_input) for output in contract.outputs
        ),
        "a pose model needs keypoints": is_pose and contract.keypoints is None,
        "a pose model needs an output of the kind heatmaps": is_pose and "heatmaps" not in kinds,
        f"{len(contract.palette)} colors for {classes} classes": len(contract.palette) != classes,
        "palette values must lie in 0..255": not all(0 <= each <= 255 for color in contract.palette for each in color),
    }
    wrong |= _wrong_threshold(contract, kinds)
    names = (spec.name, *(output.name for output in contract.outputs), *contract.classes)
    faults = list(filter(None, (*map(name_fault, names), text_fault(contract))))
    problems = [problem for problem, is_so in wrong.items() if is_so] + faults[:1]  # there may be hundreds
    if problems:
        raise ContractError(f"the contract cannot be right: {'; '.join(problems)}")


def _wrong_threshold(contract: ModelContract, kinds: Sequence[OutputKind]) -> dict[str, bool]:
    threshold, classes = contract.threshold, len(contract.classes)
    several, kind = contract.multi_label, "labels" if contract.multi_label else "masks"
    return {
        f"the threshold is {threshold}, expected above 0 and below 1": threshold is not None and not 0 < threshold < 1,
        "a multi-label model needs a threshold": several and threshold is None,
        "only a segmentation model has a threshold": contract.task == "pose" and threshold is not None,
        # 255 marks pixels of no class.
        f"{classes} classes, expected 2 to {MOST_CLASSES - 1} with multi_label": (
            several and not 2 <= classes < MOST_CLASSES
        ),
        f"{classes} classes, expected 2 with a threshold": threshold is not None and not several and classes != 2,
        f"an output of the kind {kind} does not go with multi_label {several}": kind in kinds,
    }


def _keypoint_problems(spec: KeypointSpec) -> list[str]:
    problems = []
    if not spec.names:
        problems.append("there must be at least one keypoint")
    problems += [f"the name {name!r} is given twice" for name in _repeated(spec.names)]
    problems += list(filter(None, map(name_fault, spec.names)))[:1]
    for kind, pairs in (("skeleton", spec.skeleton), ("flip_pairs", spec.flip_pairs)):
        wrong = [pair for pair in pairs if pair[0] == pair[1] or not all(0 <= i < len(spec.names) for i in pair)]
        if wrong:
            problems.append(f"{kind} has {wrong[0]}, expected two different indices in 0..{len(spec.names) - 1}")
    # A limb has no direction: 3-5 and 5-3 would be drawn on each other.
    problems += [f"the limb {limb} is given twice" for limb in _repeated(tuple(sorted(pair)) for pair in spec.skeleton)]
    # Exchanging one keypoint with two others would be no mirror.
    in_pairs = (index for pair in spec.flip_pairs for index in pair)
    problems += [f"keypoint {index} is in two flip_pairs" for index in _repeated(in_pairs)]
    least, most = _PADDING
    if not least <= spec.box_padding <= most:
        problems.append(f"box_padding is {spec.box_padding}, expected {least} to {most}, 1.25 as a rule")
    return problems


def _repeated(values: Iterable[_T]) -> list[_T]:
    return [value for value, count in Counter(values).items() if count > 1]
