"""TensorRT and CUDA without a card: see the folder ``fakes``."""

import importlib
import sys
from pathlib import Path

import pytest

FAKES = Path(__file__).parent / "fakes"


def taken_out():
    """Take the libraries' modules out of the interpreter and return them."""
    names = [
        name for name in sys.modules if name.partition(".")[0] in ("tensorrt", "tensorrt_rtx", "tensorrt_lean", "cuda")
    ]
    return {name: sys.modules.pop(name) for name in names}


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    """Put the fakes in the place of the libraries, here and in other processes; gives the fake CUDA."""
    real = taken_out()
    monkeypatch.syspath_prepend(str(FAKES))
    monkeypatch.setenv("SFPP_CACHE", str(tmp_path / "cache"))
    yield importlib.import_module("cuda.bindings.runtime")
    taken_out()
    sys.modules.update(real)


@pytest.fixture
def fault(monkeypatch):
    """Return a function that lets the fake TensorRT go wrong."""
    return lambda name: monkeypatch.setenv("FAKE_FAULT", name)
