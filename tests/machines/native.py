"""The suite with other versions of the libraries, on this machine: ``make test-newest`` and ``make test-oldest``.

    python3 -m tests.machines.native newest     # the newest Python that is there, and the newest of every library
    python3 -m tests.machines.native oldest     # the lowest versions that pyproject.toml allows, Python's included

Each has an environment of its own in ``build``, without torch: tests that import it are skipped. pip's configuration is
this machine's. What follows the name goes to pytest. Nothing but Python itself is needed here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.machines.results import ENDED, ROOT, report

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib

EXTRAS = ("bench", "calibrate", "cpu", "export", "openvino", "video", "viewer")
TOOLS = ("pytest", "pytest-xdist", "setuptools")
LOWEST = re.compile(r"([\w-]+)>=([\d.]+)(?:,<\d+)?")
PYTEST = ("-p", "no:cacheprovider", "-n", os.environ.get("WORKERS", "2"), "--dist", "loadfile")


def main(arguments: list[str]) -> int:
    """Make the environment, run the tests in it, and print what ran; return pytest's exit code."""
    name, *options = arguments or ["nothing"]
    if name not in {"newest", "oldest"}:
        sys.exit(f"expected newest or oldest, then options of pytest; got {name}")
    python, libraries = wanted(name)
    inside = environment(ROOT / "build" / name, python)
    pip = [inside, "-m", "pip", "install", "-q"]
    subprocess.run([*pip, "--upgrade", *libraries], check=True)
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-e", str(ROOT)], check=True)
    ran = ROOT / "build" / f"{name}.xml"
    pytest = [inside, "-m", "pytest", *PYTEST, f"--junitxml={ran}", *options]
    code = subprocess.run(pytest, cwd=ROOT, check=False).returncode
    if code in ENDED:
        report(name, [inside], {"tests": ran})
    return code


def wanted(name: str) -> tuple[Path, list[str]]:
    """Return the Python, and what to install in its environment."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lowest = floors(project)
    if name == "newest":
        return next(pythons()), sorted(lowest)
    version = project["requires-python"].removeprefix(">=")
    python = next((each for each in pythons() if each.name == f"python{version}"), None)
    if python is None:
        sys.exit(
            f"there is no python{version}, the oldest that pyproject.toml allows, on PATH or from pyenv; install it"
        )
    return python, [f"{library}=={lowest[library]}" for library in sorted(lowest)]


def floors(project: dict) -> dict[str, str]:
    """Return the lowest version of each library that the tests take without torch, from pyproject.toml's own words."""
    extras = project["optional-dependencies"]
    words = [*project["dependencies"], *(each for name in EXTRAS for each in extras[name])]
    words += [each for each in extras["dev"] if each.startswith(TOOLS)]
    return dict(LOWEST.fullmatch(each).groups() for each in words if not each.startswith("torch>"))


def pythons() -> Iterator[Path]:
    """Yield the Pythons of PATH and of pyenv that start, the newest first."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders = [Path(each) for each in os.get_exec_path()] + sorted(pyenv.glob("versions/*/bin"), reverse=True)
    names = {path.name for folder in folders for path in folder.glob("python3.*")}
    minors = sorted((int(each[8:]) for each in names if re.fullmatch(r"python3\.\d+", each)), reverse=True)
    for minor in minors:
        for folder in folders:
            path = folder / f"python3.{minor}"
            # A shim of pyenv's is there for versions that are not switched on; Debian's may lack venv.
            starts = "import ensurepip, sys, venv; sys.exit(sys.version_info.releaselevel != 'final')"
            if path.is_file() and not subprocess.run([path, "-c", starts], capture_output=True, check=False).returncode:
                yield path
                break


def environment(folder: Path, python: Path) -> str:
    """Return the Python of a virtual environment, made anew where it is of another version."""
    inside = folder / "bin" / python.name
    if not inside.is_file():
        subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    return str(inside)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
