"""What a model file promises: the facts a runtime needs, carried inside the file itself.

The contract is JSON under the key ``sfpp.contract`` of an ONNX file's ``metadata_props``, or in ``NAME.json`` beside an
engine. Whoever opens the model reads it and never guesses.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast, get_args, get_type_hints

from sfpp.runtime.errors import ContractError

METADATA_KEY = "sfpp.contract"
SCHEMA_VERSION = 1

Task = Literal["segmentation"]
Layout = Literal["NHWC", "NCHW"]
InputDtype = Literal["uint8", "float32"]
ResizeRule = Literal["letterbox", "stretch"]
OutputKind = Literal["logits", "labels"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class InputSpec:
    """The one input tensor: (batch, height, width, 3) for NHWC, (batch, 3, height, width) for NCHW.

    ``mean`` and ``std`` are on the 0..255 scale, in ``color_order``. When ``normalized_in_graph`` is true the graph
    takes raw values 0..255 and applies them itself; otherwise the runtime does, which needs float32.
    """

    name: str
    height: int
    width: int
    batch: int = 1
    layout: Layout = "NHWC"
    dtype: InputDtype = "uint8"
    color_order: Literal["RGB", "BGR"] = "RGB"
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    normalized_in_graph: bool = True
    resize: ResizeRule = "letterbox"

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The tensor's shape in the order of its layout."""
        if self.layout == "NHWC":
            return self.batch, self.height, self.width, 3
        return self.batch, 3, self.height, self.width


@dataclass(frozen=True)
class OutputSpec:
    """One output tensor.

    ``logits`` is (batch, classes, h, w) float32 with h = ceil(height / stride); ``labels`` is (batch, height, width)
    uint8 and has stride 1.
    """

    name: str
    kind: OutputKind
    stride: int


@dataclass(frozen=True)
class ModelContract:
    """Everything a model file says about itself; immutable, and the same after a trip through JSON.

    ``recipe`` holds one dictionary a stage in the words of the SegFormer++ authors (``q_mode``, ``kv_r``, ...), empty
    where a stage does not merge. ``palette`` holds an (R, G, B) color, 0..255, for each class.
    """

    task: Task
    family: str
    size: str
    variant: str
    input: InputSpec
    outputs: tuple[OutputSpec, ...]
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    recipe: tuple[dict[str, Any], ...] = ({}, {}, {}, {})
    matching: str = "exact"
    precision: str = "fp32"
    target: str = "portable"
    opset: int = 17
    checkpoint_sha256: str = ""
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


def contract_from_json(text: str, *, origin: str = "the contract") -> ModelContract:
    """Read a contract; ``origin`` names the file in messages.

    Fields that this version does not know are ignored as long as the schema version is known.

    Raises:
        ContractError: not JSON, a newer schema, a missing field, or a value of the wrong type or range.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{origin} is not valid JSON ({error}); export the model again") from error
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
    return _build(ModelContract, fields, origin)


def _build(cls: type[_T], fields: Any, where: str) -> _T:
    """Make the dataclass ``cls`` from JSON values, checking each field's type on the way."""
    if not isinstance(fields, Mapping):
        raise ContractError(f"{where} must be a JSON object, not {fields!r}")
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cast(Any, cls)):
        if field.name in fields:
            values[field.name] = _typed(fields[field.name], hints[field.name], f"{where}: {field.name}")
        elif field.default is dataclasses.MISSING:
            raise ContractError(f"{where} lacks the field {field.name!r}; export the model again")
    return cls(**values)


def _typed(value: Any, hint: Any, where: str) -> Any:
    """Return ``value`` as the type ``hint`` or raise; lists become tuples, since JSON has no tuples."""
    if dataclasses.is_dataclass(hint):
        return _build(cast(type[Any], hint), value, where)
    origin, arguments = getattr(hint, "__origin__", None), get_args(hint)
    if origin is Literal:
        if value not in arguments:
            raise ContractError(f"{where} is {value!r}, expected one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        return _typed_tuple(value, arguments, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise ContractError(f"{where} is {value!r}, expected a JSON object")
        return value
    accepted = (int, float) if hint is float else hint
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise ContractError(f"{where} is {value!r}, expected {hint.__name__}")
    if hint is not float:
        return value
    try:
        return float(value)
    except OverflowError as error:  # JSON has integers of any length
        raise ContractError(f"{where} is too large to be a number of this model") from error


def _typed_tuple(value: Any, arguments: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ContractError(f"{where} is {value!r}, expected a list")
    if arguments[-1] is Ellipsis:
        return tuple(_typed(item, arguments[0], where) for item in value)
    if len(value) != len(arguments):
        raise ContractError(f"{where} has {len(value)} values, expected {len(arguments)}")
    return tuple(_typed(item, hint, where) for item, hint in zip(value, arguments, strict=True))


def _check_values(contract: ModelContract) -> None:
    """Refuse numbers that no model can mean, before they become shapes and indices."""
    spec = contract.input
    problems = []
    if min(spec.height, spec.width, spec.batch) < 1:
        problems.append(f"input size {spec.batch}x{spec.height}x{spec.width} must be positive")
    if not all(math.isfinite(value) for value in spec.mean) or not all(0 < value < math.inf for value in spec.std):
        problems.append("mean must be finite and std positive")
    if spec.dtype == "uint8" and not spec.normalized_in_graph:
        problems.append("an input of type uint8 cannot hold normalized values, so the graph must normalize")
    if not contract.outputs:
        problems.append("there must be at least one output")
    if any(output.stride < 1 for output in contract.outputs):
        problems.append("an output's stride must be at least 1")
    if not 1 <= len(contract.classes) <= 256:
        problems.append(f"there are {len(contract.classes)} classes, expected 1 to 256 (labels are uint8)")
    if len(contract.palette) != len(contract.classes):
        problems.append(f"{len(contract.palette)} colors for {len(contract.classes)} classes")
    if any(not 0 <= channel <= 255 for color in contract.palette for channel in color):
        problems.append("palette values must lie in 0..255")
    if problems:
        raise ContractError(f"the contract cannot be right: {'; '.join(problems)}")
