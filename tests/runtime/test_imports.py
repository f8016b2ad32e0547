import sys

import pytest

from sfpp.runtime import imports
from sfpp.runtime.errors import MissingDependencyError
from sfpp.runtime.imports import cv2_text, import_cv2


@pytest.fixture
def no_cv2(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setattr(imports, "_JETSON_MARKER", tmp_path / "no such file")


def test_module_is_returned():
    assert import_cv2(purpose="this test").__name__ == "cv2"


def test_opencv_takes_the_threads_that_a_container_allows_once(monkeypatch):
    cv2 = import_cv2(purpose="this test")
    before = cv2.getNumThreads()
    monkeypatch.setattr(imports, "thread_limit", lambda: 1)
    imports._keep_to_allowed_cores.cache_clear()
    try:
        assert import_cv2(purpose="this test").getNumThreads() == 1
        cv2.setNumThreads(2)
        assert import_cv2(purpose="this test").getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


@pytest.mark.usefixtures("no_cv2")
def test_missing_opencv_names_purpose_and_extra():
    with pytest.raises(MissingDependencyError, match=r"^reading needs OpenCV, .*pip install 'sfpp\[cpu\]'$") as caught:
        import_cv2(purpose="reading")
    assert caught.value.extra == "cpu"


@pytest.mark.usefixtures("no_cv2")
def test_jetson_is_pointed_to_the_systems_opencv(monkeypatch, tmp_path):
    marker = tmp_path / "nv_tegra_release"
    marker.touch()
    monkeypatch.setattr(imports, "_JETSON_MARKER", marker)
    with pytest.raises(MissingDependencyError, match=r"apt install python3-opencv") as caught:
        import_cv2(purpose="reading")
    assert "pip" not in str(caught.value)


def test_opencv_that_does_not_load_says_why(monkeypatch, tmp_path):
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(imports, "_JETSON_MARKER", tmp_path / "no such file")
    with pytest.raises(MissingDependencyError, match=r"does not load \(libGL\.so\.1.*opencv-python-headless"):
        import_cv2(purpose="reading")


def test_half_of_a_surrogate_pair_becomes_what_opencv_takes():
    assert cv2_text("Straße 道路") == "Straße 道路"
    assert cv2_text("a\ud800b\udcff") == "a?b?"
