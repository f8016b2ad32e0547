"""Options that are described once: fields in Python, flags on a command line."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import pytest

from sfpp.runtime.options import add_options, option, options_of


@dataclass(frozen=True)
class Settings:
    model: Path = option("the model", flags=("model",), metavar="MODEL")
    images: str = option("where the images are")
    held_out: int = option("how many to hold out", default=24, type=int, metavar="N")
    rest: str | None = option("what the rest is in (default: by the target)", default=None, choices=("fp32", "fp16"))
    cache: bool = option("use the cache", default=True)
    output: Path = option("folder", default=Path(), flags=("-o", "--output"), metavar="DIR")


@pytest.fixture
def parser():
    made = argparse.ArgumentParser()
    add_options(made, Settings, "model", "images")
    add_options(made.add_argument_group("others"), Settings, "held_out", "rest", "cache", "output")
    made.add_argument("--json")
    return made


def parsed(parser, *words):
    return Settings(**options_of(parser.parse_args(words), Settings))


def test_a_command_line_has_the_defaults_of_the_fields(parser):
    found = parsed(parser, "m.onnx", "--images", "folder")
    assert found == Settings("m.onnx", "folder")


def test_every_field_can_be_set(parser):
    words = ("m.onnx", "--images", "a", "--held-out", "3", "--rest", "fp16", "--no-cache", "-o", "out", "--json", "x")
    assert parsed(parser, *words) == Settings("m.onnx", "a", 3, "fp16", False, "out")


def test_a_field_without_a_default_must_be_given(parser, capsys):
    for words, missing in ((["m.onnx"], "--images"), (["--images", "a"], "MODEL")):
        with pytest.raises(SystemExit):
            parser.parse_args(words)
        assert missing in capsys.readouterr().err


def test_help_says_each_meaning_and_default_once(parser):
    text = " ".join(parser.format_help().split())
    assert "how many to hold out (default: 24)" in text
    assert "what the rest is in (default: by the target)" in text
    assert "(default: None)" not in text
    assert "--no-cache do not use the cache" in text
    assert "where the images are" in text
