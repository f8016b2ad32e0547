"""Exported models to compare, of every family and task, small enough to run in a moment."""

import functools
from dataclasses import dataclass
from pathlib import Path

import pytest

from sfpp.export import export_onnx
from tests.golden import FOLDER, GoldenCase

_RECIPES = {
    "fast": {"variant": "fast", "res": "192x128"},
    "fast+": {"variant": "fast+", "res": "192x128"},
    "original": {"res": "192x128"},
    "pose": {"task": "pose", "variant": "fast", "res": "128x192"},
    "edaformer": {"isr": "2211-222", "res": "192x128"},
}


@dataclass(frozen=True)
class Exported:
    """A model file and the checkpoint that it was made from, None for a demonstration model's."""

    path: Path
    weights: Path | None = None


@pytest.fixture(scope="session")
def exported(demo_export, tmp_path_factory):
    """Return what gives a model by its name, exported once."""

    @functools.cache
    def make(name):
        if name != "edaformer":
            return Exported(demo_export(**_RECIPES[name]).path)
        if not FOLDER.is_dir():
            pytest.skip(f"no golden cases in {FOLDER}")
        folder = tmp_path_factory.mktemp("exported")
        weights = GoldenCase("edaformer_t_2211-222_256x320").save_checkpoint(folder)
        return Exported(export_onnx(weights, folder / "edaformer.onnx", **_RECIPES[name]).path, weights)

    return make
