"""Limits on what comes from outside, and the variables that set them."""

import pytest

from sfpp.runtime.errors import UsageError
from sfpp.runtime.limits import DEFAULTS, advice, limit


@pytest.mark.parametrize("name", DEFAULTS)
def test_each_limit_is_set_by_a_variable_of_its_name(monkeypatch, name):
    monkeypatch.delenv(f"SFPP_MAX_{name}", raising=False)
    assert limit(name) == DEFAULTS[name] > 0
    assert f"set SFPP_MAX_{name} to more" in advice(name)
    monkeypatch.setenv(f"SFPP_MAX_{name}", " 123 ")
    assert limit(name) == 123


@pytest.mark.parametrize("text", ["0", "-1", "1e9", "many", "9" * 5000, "\u0663"])
def test_what_is_no_number_is_refused(monkeypatch, text):
    monkeypatch.setenv("SFPP_MAX_PIXELS", text)
    with pytest.raises(UsageError, match=r"^SFPP_MAX_PIXELS is '.*'; give a whole number above 0, or unset it$"):
        limit("PIXELS")
