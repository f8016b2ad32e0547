"""Python processes that this one starts."""

from __future__ import annotations

import os
import sys


def same_modules() -> dict[str, str]:
    """Return this process's environment, with which ``sys.executable`` finds whatever can be imported here.

    A path that was added by hand, as by a test or a notebook, would else be unknown to the child.
    """
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
