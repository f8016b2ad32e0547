"""Exported models to compare, of every family and task, small enough to run in a moment."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from sfpp.export import export_onnx
from tests.golden import FOLDER, GoldenCase

_RECIPES = {
    "fast": {"variant": "fast", "res": "192x128"},
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
def exported(tmp_path_factory):
    """Return what exports a model once, by its name."""
    folder, made = tmp_path_factory.mktemp("exported"), {}

    def make(name):
        if name not in made:
            weights = None
            if name == "edaformer":
                if not FOLDER.is_dir():
                    pytest.skip(f"no golden cases in {FOLDER}")
                weights = GoldenCase("edaformer_t_2211-222_256x320").save_checkpoint(folder)
            made[name] = Exported(export_onnx(weights, folder / f"{name}.onnx", **_RECIPES[name]).path, weights)
        return made[name]

    return make
