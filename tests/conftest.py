"""Fixtures shared by all tests."""

import importlib.machinery
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
def shared() -> Path:
    """The folder of reference data beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"the reference data is not at {SHARED}")
    return SHARED
