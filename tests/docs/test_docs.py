"""What the pages tell people to type and to open is there: links, files, options; and what images are made of."""

import argparse
import functools
import importlib
import importlib.metadata
import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from sfpp.runtime.limits import DEFAULTS

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
IMAGES = sorted((ROOT / "docker").glob("*.Dockerfile"))
HARDWARE = [ROOT / "docs/jetson.md", ROOT / "docs/desktop-gpu.md"]
UNTRIED = "not run on hardware"

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`]+)`")


class Line(NamedTuple):
    """A command line of a page, and where it stands."""

    page: str
    number: int
    text: str


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def prose(text):
    """Return a page without its fenced blocks, at the same line numbers."""
    return FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)


def anchor(heading):
    """Return the fragment that GitHub gives a heading."""
    letters = re.sub(r"[^\w\- ]", "", heading.replace("`", "").strip().lower())
    return letters.replace(" ", "-")


def anchors(path):
    headings = re.findall(r"^#+ (.+)$", prose(path.read_text(encoding="utf-8")), re.MULTILINE)
    return {anchor(heading) for heading in headings}


@functools.cache
def scripts():
    """The commands that the installed sfpp has, by name.

    Of all its records: what a build left in the source's folder would hide the environment's own.
    """
    records = importlib.metadata.distributions(name="sfpp")
    return {each.name: each for record in records for each in record.entry_points.select(group="console_scripts")}


class _Parser(BaseException):
    """Carries a command's parser out of its ``main``; no handler of failures may catch it."""


@functools.cache
def parser_of(command):
    """Return the parser of a command, caught where the command would use it."""

    def caught(self, *arguments, **options):
        raise _Parser(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", caught)
        patch.setattr(argparse.ArgumentParser, "parse_known_args", caught)
        with pytest.raises(_Parser) as found:
            importlib.import_module(scripts()[command].load().args[0]).main([])
    return found.value.args[0]


def options_in(words):
    """Return what begins with dashes, ``--res=64x64`` as ``--res``; a negative number is a value."""
    return [word.split("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)]


def shell_lines(path):
    """Yield the lines of a page's ``sh`` blocks, continued ones joined, and what its services start."""
    text = path.read_text(encoding="utf-8")
    for match in re.finditer(r"^ExecStart=(.+)$", text, re.MULTILINE):
        yield Line(name_of(path), text[: match.start()].count("\n") + 1, match[1])
    for block in FENCE.finditer(text):
        if block[2] != "sh":
            continue
        first = text[: block.start(3)].count("\n") + 1
        number, joined = first, ""
        for offset, line in enumerate(block[3].splitlines()):
            joined = joined + " " + line.strip() if joined else line.strip()
            number = number if joined != line.strip() else first + offset
            if joined.endswith("\\"):
                joined = joined.removesuffix("\\").rstrip()
                continue
            yield Line(name_of(path), number, joined)
            joined = ""


def calls(text):
    """Return the calls of sfpp's commands in a shell line, each as its words."""
    words = shlex.split(text, comments=True)
    parts, found = [[]], []
    for word in words:
        if word in {"&&", "||", "|", ";", "&"}:
            parts.append([])
        else:
            parts[-1].append(word)
    for part in parts:
        while part and (re.fullmatch(r"\w+=.*", part[0]) or part[0] in {"sudo", "time", "$", "do", "then"}):
            part.pop(0)
        if part and Path(part[0]).name.startswith("sfpp-"):
            found.append([Path(part[0]).name, *part[1:]])
    return found


COMMAND_LINES = [line for page in PAGES for line in shell_lines(page) if calls(line.text)]
INLINE = [
    Line(name_of(page), text[: match.start()].count("\n") + 1, match[1])
    for page in PAGES
    for text in [prose(page.read_text(encoding="utf-8"))]
    for match in CODE.finditer(text)
    if re.match(r"sfpp-\w+ ", match[1])
]


def known_options(command, place):
    assert command in scripts(), f"{place}: there is no command {command}"
    return set(parser_of(command)._option_string_actions)


def identity(line):
    return f"{line.page}:{line.number}"


def test_there_is_something_to_check():
    assert len(PAGES) > 10
    assert len(IMAGES) == 2
    assert len(COMMAND_LINES) > 80
    commands = {call[0] for each in COMMAND_LINES for call in calls(each.text)}
    assert commands == set(scripts())
    assert any(each.text.startswith("/opt/sfpp/bin/sfpp-run") for each in COMMAND_LINES)  # of a service


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_index_has_every_page():
    text = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"} <= set(
        re.findall(r"\]\(([\w-]+\.md)\)", text)
    )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page):
    text = CODE.sub("", prose(page.read_text(encoding="utf-8")))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{name_of(page)} links to {target}, which does not exist"
        assert found.is_relative_to(ROOT), f"{name_of(page)} links to {target}, outside of the repository"
        if fragment and found.suffix == ".md":
            assert fragment in anchors(found), f"{name_of(page)} links to {target}, and there is no such heading"


def test_links_of_the_front_page_can_be_made_absolute(tmp_path):
    """By the command in CONTRIBUTING.md, for a package index."""
    (line,) = (each.text for each in shell_lines(ROOT / "CONTRIBUTING.md") if each.text.startswith("sed "))
    line = line.replace("RAW_ADDRESS", "https://raw.example/main").replace("ADDRESS", "https://example/main")
    (tmp_path / "README.md").write_bytes((ROOT / "README.md").read_bytes())
    subprocess.run(shlex.split(line), cwd=tmp_path, check=True)
    text = CODE.sub("", prose((tmp_path / "README.md").read_text(encoding="utf-8")))
    targets = re.findall(r"(!?)\[[^]]*\]\(([^)\s]+)\)", text)
    assert len(targets) > 10
    for picture, target in targets:
        assert target.startswith(("#", "https://raw.example/main/docs/" if picture else "https://")), target
        assert target.count("https://") <= 1


def named_files(text):
    """Return what a page's inline code names in the repository: paths of its folders, and files of its root."""
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    folders -= {"build", "out"}
    for span in CODE.findall(prose(text)):
        in_folder = re.fullmatch(r"[\w./-]+", span) and "/" in span and span.split("/")[0] in folders
        if in_folder or re.fullmatch(r"NOTICE|LICENSE|Makefile|[\w-]+\.(toml|txt|md)", span):
            yield span


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_files_are_there(page):
    named = set(named_files(page.read_text(encoding="utf-8")))
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert not missing, f"{name_of(page)} names {', '.join(missing)}, which does not exist"


@pytest.mark.parametrize("line", COMMAND_LINES, ids=identity)
def test_command_lines_would_be_understood(line, capsys):
    """Each is parsed by its own command: unknown options, values that are no choice and missing arguments fail."""
    for command, *words in calls(line.text):
        used = set(options_in(words))
        known = known_options(command, identity(line))
        # In full: argparse would also take beginnings of options.
        assert used <= known, f"{identity(line)}: {command} does not know all of {line.text}"
        try:
            parser_of(command).parse_intermixed_args(words)
        except SystemExit:
            pytest.fail(f"{identity(line)}: {line.text}\n{capsys.readouterr().err}")


@pytest.mark.parametrize("line", INLINE, ids=identity)
def test_inline_commands_name_known_options(line):
    """They are shortened for reading (``[--backend NAME]``, ``...``), so only their options can be checked."""
    command = line.text.split()[0]
    used = set(options_in(re.split(r"[\s\[\]|,]+", line.text)))
    unknown = used - known_options(command, identity(line))
    assert not unknown, f"{identity(line)}: {command} does not know {', '.join(sorted(unknown))}"


def declared_extras():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    return set(re.findall(r"^(\w+) = \[", table, re.MULTILINE))


@pytest.mark.parametrize("path", [*PAGES, *IMAGES], ids=name_of)
def test_extras_are_declared(path):
    text = path.read_text(encoding="utf-8")
    for names in re.findall(r"(?:['\"]\.|\bsfpp|\.whl\)?)\[([\w,]+)\]", text):
        assert set(names.split(",")) <= declared_extras(), f"{name_of(path)} installs the extras {names}"


def instructions(path):
    """Return a Dockerfile's instructions, continued lines joined, comments left out."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]


def is_in_context(source):
    """Whether ``.dockerignore``, which names what it lets in, lets this in."""
    return f"!{source}" in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("path", IMAGES, ids=name_of)
def test_images_copy_what_is_there(path):
    copied = set()
    for word, rest in instructions(path):
        if word in {"COPY", "ADD"} and not rest.startswith("--from"):
            *sources, _ = rest.split()
            copied |= set(sources)
    for source in copied:
        assert (ROOT / source).exists(), f"{path.name} copies {source}, which does not exist"
        assert is_in_context(source), f"{path.name} copies {source}, which .dockerignore leaves out"
    # All that a wheel is made of: without one of these it cannot be built.
    folders = set(
        re.findall(r'^"sfpp[\w.]*" = "(\w+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert {"package", "tooling"} < folders
    assert {"pyproject.toml", "README.md", "LICENSE", "NOTICE", *folders} <= copied


@pytest.mark.parametrize("path", IMAGES, ids=name_of)
def test_images_run_a_command_and_not_as_root(path):
    said = instructions(path)
    users = [rest for word, rest in said if word == "USER"]
    assert users, f"{path.name} names no user"
    assert users[-1] not in {"root", "0"}
    (entry,) = (rest for word, rest in said if word == "ENTRYPOINT")
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project.scripts]")[1].split("\n[")[0]
    assert re.fullmatch(r'\["(sfpp-\w+)"\]', entry)
    assert f"\n{entry[2:-2]} =" in declared


@pytest.mark.parametrize("path", [*HARDWARE, *IMAGES], ids=name_of)
def test_what_was_not_tried_says_so_once_at_the_top(path):
    lines = path.read_text(encoding="utf-8").lower().splitlines()
    said = [number for number, line in enumerate(lines) if UNTRIED in line]
    assert len(said) == 1, f"{path.name} says {UNTRIED!r} {len(said)} times"
    assert said[0] < 5


def test_a_call_is_found_among_what_surrounds_it():
    text = "OMP_WAIT_POLICY=passive .venv/bin/sfpp-run a.onnx 'my clip.mp4' # why && mkdir x && sfpp-bench a.onnx"
    assert calls(text) == [["sfpp-run", "a.onnx", "my clip.mp4"]]
    assert calls("mkdir x && sfpp-bench a.onnx --runs 3") == [["sfpp-bench", "a.onnx", "--runs", "3"]]
    assert calls("pip install sfpp-run") == []


def test_an_unknown_option_would_be_found():
    known = set(parser_of("sfpp-run")._option_string_actions)
    assert "--max-frames" in known
    assert set(options_in(["model.onnx", "--max-frame=3", "-1"])) - known == {"--max-frame"}


def test_the_page_on_security_has_a_row_for_each_limit():
    rows = re.findall(
        r"^\| `SFPP_MAX_(\w+)` \| ([\d ]+) \|", (ROOT / "SECURITY.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    told = {name: int(number.replace(" ", "")) for name, number in rows}
    assert told == dict(DEFAULTS), "give each limit of runtime/limits.py a row in the table of SECURITY.md"
