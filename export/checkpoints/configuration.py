"""The configuration that MMSegmentation and MMPose store beside their weights, read as data.

``meta.cfg`` (1.x) or ``meta.config`` (0.x) is Python source. Literals, ``dict(...)`` and names assigned before are
understood; nothing is ever run, and what is anything else is :data:`UNREADABLE`.
"""

from __future__ import annotations

import ast
import enum
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_KEYS = ("cfg", "config")
# Dumps have some hundred kilobytes at most.
_LONGEST = 4_000_000
_WRAPPERS = ("MultiScaleFlipAug", "TestTimeAug")


class Unread(enum.Enum):
    """What stands where there is no value."""

    ABSENT = "absent"
    UNREADABLE = "unreadable"


ABSENT, UNREADABLE = Unread.ABSENT, Unread.UNREADABLE


@dataclass(frozen=True)
class Configuration:
    """A configuration by its top-level names; ``problem`` says why nothing of it can be read, if so."""

    source: str
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""

    def at(self, *path: str) -> Any:
        """Return what lies under nested keys: ABSENT, UNREADABLE, or a value whose parts may be UNREADABLE."""
        value: Any = self.values
        for key in path:
            value = entry(value, key)
        return value

    def test_steps(self) -> list[Mapping[str, Any]]:
        """Return the steps that prepare an image for testing, in their order; empty where none can be read.

        Those inside a wrapper take over the scale that it says.
        """
        found = (self.at(*path) for path in _PIPELINES)
        pipeline = next((each for each in found if isinstance(each, list | tuple)), ())
        return [inner for step in pipeline if isinstance(step, Mapping) for inner in _unwrapped(step)]


# 0.x tests with data.test.pipeline and 1.x with test_pipeline, which a data loader may repeat.
_PIPELINES = (
    ("data", "test", "pipeline"),
    ("test_pipeline",),
    ("test_dataloader", "dataset", "pipeline"),
    ("val_dataloader", "dataset", "pipeline"),
)


def stored_configuration(metadata: Mapping[str, Any]) -> Configuration | None:
    """Return the configuration in a checkpoint's ``meta``, None where there is none."""
    for key in _KEYS:
        content = metadata.get(key)
        if isinstance(content, Mapping):
            return Configuration(f"meta.{key}", content)
        if isinstance(content, str) and content.strip():
            return _from_source(content, f"meta.{key}")
    return None


def merging_in_training(metadata: Mapping[str, Any]) -> str:
    """Return where a checkpoint's configuration says that tokens were merged in training; empty where it does not."""
    configuration = stored_configuration(metadata)
    if configuration is None:
        return ""
    path = next(_merging_paths(configuration.at("model"), "model"), "")
    return path and f"{configuration.source}, {path}"


def _merging_paths(value: Any, path: str) -> Iterator[str]:
    """Yield the paths of what names a mode of merging, in the words of recipes."""
    if isinstance(value, Mapping):
        if any(isinstance(value.get(key), str) and value[key] for key in ("q_mode", "kv_mode")):
            yield path
        for key, inner in value.items():
            yield from _merging_paths(inner, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _merging_paths(inner, f"{path}[{index}]")


def entry(value: Any, key: str) -> Any:
    """Return a mapping's value for a key, ABSENT where it has none; of what cannot be read nothing can be."""
    if value is UNREADABLE:
        return UNREADABLE
    return value.get(key, ABSENT) if isinstance(value, Mapping) else ABSENT


def kind_of(step: Any) -> str:
    """Return the name of a step's or module's class without its package; empty where none is said."""
    named = entry(step, "type")
    return named.rpartition(".")[2] if isinstance(named, str) else ""


def shown(value: Any) -> str:
    """Return a value in few words, however large it is."""
    return "what sfpp cannot read without running it" if value is UNREADABLE else reprlib.repr(value)


def _unwrapped(step: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    inner = step.get("transforms")
    if kind_of(step) not in _WRAPPERS or not isinstance(inner, list | tuple):
        yield step
        return
    scale = {key: step[key] for key in ("img_scale", "scale") if key in step}
    # One level only: wrappers do not nest, and text that says so could grow without end.
    for each in inner:
        if isinstance(each, Mapping):
            yield {**scale, **each} if "Resize" in kind_of(each) else each


def _from_source(text: str, source: str) -> Configuration:
    if len(text) > _LONGEST:
        return Configuration(source, problem=f"it has {len(text)} characters, expected at most {_LONGEST}")
    try:
        values = _assigned(ast.parse(text).body)
    # Of text that nests too deeply the parser runs out of memory, by its own account, or of recursion.
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Configuration(source, problem=f"it is not Python ({type(error).__name__})")
    if values is None:
        return Configuration(source, problem="it changes its values by code, which is not run")
    if "_base_" in values:
        return Configuration(source, problem="it takes over other files with _base_, which are not in the checkpoint")
    return Configuration(source, values)


def _assigned(statements: list[ast.stmt]) -> dict[str, Any] | None:
    """Return the values of the names that are assigned to; None where other statements may change them."""
    values: dict[str, Any] = {}
    for statement in statements:
        targets, value = _assignment(statement)
        if targets is not None and value is not None:
            values.update(dict.fromkeys(targets, _value(value, values)))
            continue
        names = {each.id for each in ast.walk(statement) if isinstance(each, ast.Name)}
        # Values are shared between names, so a change to one of them may be a change to any.
        if names & set(values):
            return None
        values.update(dict.fromkeys(names, UNREADABLE))
    return values


def _assignment(statement: ast.stmt) -> tuple[list[str] | None, ast.expr | None]:
    if isinstance(statement, ast.AnnAssign):
        targets: list[ast.expr] = [statement.target]
    elif isinstance(statement, ast.Assign):
        targets = statement.targets
    else:
        return None, None
    names = [each.id for each in targets if isinstance(each, ast.Name)]
    return (names if len(names) == len(targets) else None), statement.value


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """Evaluate a literal, a name that is known, or ``dict(...)``."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str | bool | int | float | None) else UNREADABLE
    if isinstance(node, ast.Name):
        return names.get(node.id, UNREADABLE)
    if isinstance(node, ast.List | ast.Tuple):
        items = [_value(each, names) for each in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        number = _value(node.operand, names)
        if not isinstance(number, int | float) or isinstance(number, bool):
            return UNREADABLE
        return -number if isinstance(node.op, ast.USub) else number
    if isinstance(node, ast.Dict):
        keys = [None if key is None else _value(key, names) for key in node.keys]
        return _mapping(list(zip(keys, node.values, strict=True)), names)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        return _mapping([(keyword.arg, keyword.value) for keyword in node.keywords], names)
    return UNREADABLE


def _mapping(pairs: list[tuple[Any, ast.expr]], names: Mapping[str, Any]) -> Any:
    """Return a dictionary of keys and values, where the key None takes over another one."""
    found: dict[Any, Any] = {}
    for key, node in pairs:
        value = _value(node, names)
        if key is None:
            if not isinstance(value, Mapping):
                return UNREADABLE  # it might have any key
            found.update(value)
        elif isinstance(key, str | int | float):
            found[key] = value
        else:
            return UNREADABLE
    return found
