"""Names that are imported when somebody asks for them."""

import sys

import pytest

from sfpp.runtime.errors import MissingDependencyError
from sfpp.runtime.imports import lazy_names


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `lazy_example` whose module `heavy` notes that it was imported."""
    folder = tmp_path / "lazy_example"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "heavy.py").write_text("answer = 42\nhidden = 1\n")
    (folder / "needy.py").write_text("import a_library_that_nobody_has\nanswer = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "lazy_example"
    for name in [each for each in sys.modules if each.startswith("lazy_example")]:
        del sys.modules[name]


def test_a_name_is_imported_when_it_is_asked_for(package):
    get, _ = lazy_names(package, {f"{package}.heavy": "answer"}, extra="x", purpose="answering")
    assert f"{package}.heavy" not in sys.modules
    assert get("answer") == 42
    assert f"{package}.heavy" in sys.modules


def test_other_names_are_not_there(package):
    get, _ = lazy_names(package, {f"{package}.heavy": "answer"}, extra="x", purpose="answering")
    with pytest.raises(AttributeError, match="module 'lazy_example' has no attribute 'hidden'"):
        get("hidden")


def test_a_missing_library_is_told_with_what_to_install(package):
    get, _ = lazy_names(package, {f"{package}.needy": "answer"}, extra="heavy", purpose="answering")
    with pytest.raises(MissingDependencyError, match=r"answering needs a_library_that_nobody_has.*'sfpp\[heavy\]'"):
        get("answer")


def test_a_module_of_our_own_that_is_missing_is_a_bug():
    get, _ = lazy_names("sfpp.nowhere", {"sfpp.nowhere.at_all": "answer"}, extra="x", purpose="answering")
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        get("answer")


def test_the_names_are_those_of_all_modules():
    _, names = lazy_names("letters", {"letters.late": "z y", "letters.early": "a"})
    assert names == ["a", "y", "z"]
