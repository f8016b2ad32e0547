"""Python processes that this one starts; no other place starts any."""

from __future__ import annotations

import sys
from typing import Any

# Told -c or -m, Python looks for modules in the current folder first: a json.py that lies beside a model would be run.
# Python before 3.11 has no option against it, but imports nothing before its first line of code, which can still mend
# the path; from 3.13 on it does import something by then, so that the option is needed.
_SAFE_PATH = ("-P",) if sys.version_info >= (3, 11) else ()
_AS_MAIN = "import runpy; sys.argv.pop(0); runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"


def python_module(module: str, *arguments: str) -> dict[str, Any]:
    """Return what :mod:`subprocess` has to be called with to run a module as ``python -m`` does; see below."""
    return python_code(_AS_MAIN, module, *arguments)


def python_code(code: str, *arguments: str) -> dict[str, Any]:
    """Return what :mod:`subprocess` has to be called with to run code in another Python.

        subprocess.run(**python_code("import json; print(json.__file__)"), check=True)

    The child looks for modules exactly where this process does: also where a test or a notebook has added a path by
    hand, and never in the current folder unless this process does so too. The code finds ``sys`` imported.
    """
    path = [entry for entry in sys.path if isinstance(entry, str) and entry]
    return {"args": [sys.executable, *_SAFE_PATH, "-c", f"import sys; sys.path[:] = {path!r}\n{code}", *arguments]}
