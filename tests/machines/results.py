"""What ran on which machine: one row of the table of docs/machines.md for each make target."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "machines.json"
PAGE = ROOT / "docs" / "machines.md"
HEADER = "| `make` | machine | versions | passed | skipped | failed | date |\n|---|---|---|---|---|---|---|\n"
LIBRARIES = (
    *("numpy", "onnxruntime", "openvino", "opencv-python-headless", "av", "onnx", "aiohttp", "matplotlib"),
    *("torch", "transformers"),
)
# pytest's exit codes of a run that came to its end: all passed, some failed.
ENDED = (0, 1)
# Run by the Python that the tests ran with; says what that is.
FACTS = f"""
import importlib.metadata as m, json, platform
found = {{d.metadata["Name"]: d.version for d in m.distributions()}}
print(json.dumps({{"machine": platform.machine(), "Python": platform.python_version(),
                   **{{n: found[n] for n in {LIBRARIES!r} if n in found}}}}))
"""


def report(target: str, python: list[str], files: dict[str, Path], *, machine: str = "") -> None:
    """Print a target's row, and keep it for the page where the environment says ``RECORD=1``.

    Args:
        target: newest, for ``make test-newest``.
        python: the command of the Python that the tests ran with.
        files: pytest's JUnit files.
        machine: its name, where it has a better one than its architecture.
    """
    facts = json.loads(subprocess.run([*python, "-c", FACTS], check=True, capture_output=True, text=True).stdout)
    name = facts.pop("machine")
    counted: Counter[str] = sum((counts(each) for each in files.values()), Counter())
    row = {
        "machine": machine or name,
        "versions": facts,
        **{kind: counted[kind] for kind in ("passed", "skipped", "failed")},
        "date": datetime.date.today().isoformat(),
    }
    print(HEADER + row_text(target, row))
    if os.environ.get("RECORD") == "1":
        keep(target, row)


def counts(path: Path) -> Counter[str]:
    """Count the tests of pytest's JUnit file: passed, skipped, failed (errors too)."""
    suite = ElementTree.parse(path).getroot().find("testsuite")
    if suite is None:
        raise ValueError(f"{path} has no testsuite; expected what pytest --junitxml writes")
    number = {kind: int(suite.attrib[kind]) for kind in ("tests", "skipped", "failures", "errors")}
    failed = number["failures"] + number["errors"]
    return Counter(passed=number["tests"] - number["skipped"] - failed, skipped=number["skipped"], failed=failed)


def keep(target: str, row: dict[str, Any]) -> None:
    """Write the row into the results, and the table into the page."""
    rows = {**json.loads(RESULTS.read_text(encoding="utf-8")), target: row}
    before = table(json.loads(RESULTS.read_text(encoding="utf-8")))
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page.replace(before, table(rows)), encoding="utf-8")


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Return the page's table, in Markdown."""
    return HEADER + "".join(row_text(target, rows[target]) for target in sorted(rows))


def row_text(target: str, row: dict[str, Any]) -> str:
    """Return one line of the table."""
    versions = ", ".join(f"{name.removesuffix('-python-headless')} {each}" for name, each in row["versions"].items())
    numbers = " | ".join(str(row[kind]) for kind in ("passed", "skipped", "failed"))
    return f"| `test-{target}` | {row['machine']} | {versions} | {numbers} | {row['date']} |\n"
