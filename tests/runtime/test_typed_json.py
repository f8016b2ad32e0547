import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfpp.runtime.errors import ContractError
from sfpp.runtime.typed_json import dataclass_from_json, json_ready, name_fault, text_fault


@dataclass(frozen=True)
class Inner:
    path: Path
    picture: np.ndarray


@dataclass(frozen=True)
class Outer:
    inner: tuple[Inner, ...]
    shares: dict[int, float]


def test_everything_becomes_what_json_takes_all_the_way_down():
    value = Outer((Inner(Path("a/b"), np.zeros(2)),), {1: float("nan"), 2: np.float32(0.5), 3: float("-inf")})
    ready = json_ready([value, np.zeros(3), "text", True, None, 7])
    expected = [{"inner": [{"path": "a/b"}], "shares": {"1": None, "2": 0.5, "3": None}}, None, "text", True, None, 7]
    assert ready == expected
    assert json.loads(json.dumps(ready, allow_nan=False)) == expected


@dataclass(frozen=True)
class Named:
    name: str
    more: dict[str, Any]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "a\ud800b", "more": {}}, r"a thing: name: 'a\\ud800b' holds half of a surrogate pair"),
        ({"name": "\udfff", "more": {}}, "holds half of a surrogate pair, which is no character"),
        ({"name": "a\0b", "more": {}}, r"name: 'a\\x00b' holds a NUL character"),
        ({"name": "a", "more": {"k": [1, {"deep": "\udc00"}]}}, r"a thing: more: '\\udc00' holds half"),
        ({"name": "a", "more": {"\udc00": None}}, r"a thing: more: '\\udc00' holds half"),
    ],
)
def test_what_is_no_text_is_refused_wherever_it_stands(fields, words):
    with pytest.raises(ContractError, match=words):
        dataclass_from_json(Named, json.loads(json.dumps(fields)), where="a thing")
    assert text_fault(fields) is not None


@pytest.mark.parametrize("length", [10, 1_000_000])
@pytest.mark.parametrize("value", [[], ["x"], {"x": 1}], ids=["deep", "list", "object"])
def test_an_error_is_a_line_whatever_the_file_holds(length, value):
    value = value * length if isinstance(value, list) else {"x" * length: 1}
    for _ in range(0 if value else min(length, 5000)):
        value = [value]
    with pytest.raises(ContractError, match=r"^a thing: name is .*, expected str$") as error:
        dataclass_from_json(Named, {"name": value, "more": {}}, where="a thing")
    assert len(str(error.value)) < 200


def test_all_other_text_is_taken():
    deep = "end"
    for _ in range(5000):  # further than calls go
        deep = [deep]
    fields = {"name": "Straße\t道路 \U0001f600\n", "more": {"deep": deep, "half pairs": "\\ud800"}}
    assert dataclass_from_json(Named, fields, where="a thing") == Named(**fields)
    assert (
        dataclass_from_json(Named, json.loads('{"name": "\\ud83d\\ude00", "more": {}}'), where="").name == "\U0001f600"
    )


def test_names_are_short_and_of_one_line():
    for name in ("Straße", "道路", "🛣", "animal, animate being, beast", "n" * 256):
        assert name_fault(name) is None
    for name in ("a\nb", "a\tb", "\x1b[31m", "\x7f", "\x9b1m"):
        assert "holds a control character" in name_fault(name)
    assert "has 257 characters, and a name has 256 at most" in name_fault("n" * 257)
    assert len(name_fault("n" * 1_000_000)) < 200
    assert "half of a surrogate pair" in name_fault("\ud800")
    assert "NUL" in name_fault("\0")
