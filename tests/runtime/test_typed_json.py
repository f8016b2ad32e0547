import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfpp.runtime.typed_json import json_ready


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
