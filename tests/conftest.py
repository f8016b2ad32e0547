"""Fixtures shared by all tests."""

import dataclasses
import functools
import hashlib
import importlib.machinery
import os
import pickle
import sys
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"


class _SkipsWithoutTorch:
    """Skips the test, or the file of tests, that imports torch where there is none.

    Where only the device's libraries are installed, the rest of the suite runs; nobody keeps a list of who needs torch.
    """

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "torch" and importlib.machinery.PathFinder.find_spec(name) is None:
            pytest.skip("torch is not installed", allow_module_level=True)


sys.meta_path.insert(0, _SkipsWithoutTorch)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Compiled models of the tests stay out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SFPP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def demo_export(tmp_path_factory):
    """Return what exports the demonstration model and returns the report: each form once for all workers of a run.

    The files are only to be read.
    """
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "exports"

    @functools.cache
    def export(**settings):
        from sfpp.export import export_onnx
        from sfpp.export.settings import ExportSettings

        usual = {field.name: field.default for field in dataclasses.fields(ExportSettings)}
        asked = sorted((name, value) for name, value in settings.items() if value != usual[name])
        place = folder / hashlib.sha256(repr(asked).encode()).hexdigest()[:12]
        stored = place / "report"
        if not stored.exists():
            place.mkdir(parents=True, exist_ok=True)
            name = Path(settings.get("task", settings.get("variant", "original"))).stem
            report = export_onnx(path=place / f"{name}.onnx", **settings)
            own = place / f"report.{os.getpid()}"
            own.write_bytes(pickle.dumps(report))
            own.replace(stored)
        return pickle.loads(stored.read_bytes())

    return export


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"the reference data is not at {SHARED}")
    return SHARED
