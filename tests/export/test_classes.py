"""Names and colors of classes: known data sets, files, and generated ones."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import pytest

from sfpp.export.classes import CLASS_SETS, class_set, default_classes, generated_palette
from sfpp.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("name", "count", "index", "expected", "color"),
    [
        ("cityscapes", 19, 13, "car", (0, 0, 142)),
        ("ade20k", 150, 149, "flag", (92, 0, 255)),
        ("camvid", 11, 4, "pavement", (60, 40, 222)),
        ("voc", 21, 15, "person", (192, 128, 128)),
    ],
)
def test_known_sets(name, count, index, expected, color):
    classes = class_set(name, count)
    assert len(classes.names) == len(classes.palette) == len(set(classes.names)) == count
    assert (classes.names[index], classes.palette[index]) == (expected, color)
    assert all(0 <= channel <= 255 for channel in itertools.chain(*classes.palette))


def test_voc_colors_are_the_bits_of_the_index_shuffled():
    for index, color in enumerate(class_set("voc").palette):
        channels = [0, 0, 0]
        for bit in range(24):
            if index >> bit & 1:
                channels[bit % 3] |= 128 >> bit // 3
        assert color == tuple(channels)


@pytest.mark.parametrize("name", CLASS_SETS)
def test_another_count_says_both(name):
    with pytest.raises(UsageError, match=rf"names {len(class_set(name).names)} classes, but the model has 7"):
        class_set(name, 7)


@pytest.mark.parametrize(("typo", "meant"), [("cityscape", "cityscapes"), ("ADE20K", "ade20k"), ("ade", "ade20k")])
def test_a_typo_suggests(typo, meant):
    with pytest.raises(UsageError, match=f"did you mean '{meant}'") as caught:
        class_set(typo)
    assert caught.value.exit_code == 2
    assert "cityscapes, ade20k, camvid, voc" in str(caught.value)


def test_a_file_of_lines(tmp_path):
    path = tmp_path / "things.txt"
    path.write_text("\ufeffroad\n  deep water \r\ngraß\n\n", encoding="utf-8")
    classes = class_set(path, 3)
    assert classes.names == ("road", "deep water", "graß")
    assert classes.palette == generated_palette(3)


@pytest.mark.parametrize(
    "line", ["sky 128 0 7", "sky\t128\t0\t7 ", "sky,128,0,7", "sky: 128, 0, 7", "sky:128,0,7::", "128 0 7\t\tsky"]
)
def test_a_line_of_name_and_color(tmp_path, line):
    path = tmp_path / "things.txt"
    path.write_text(f"# label:color\nroad\n{line}\nlane 2\n")
    classes = class_set(path, 3)
    assert classes.names == ("road", "sky", "lane 2")
    assert classes.palette == (generated_palette(3)[0], (128, 0, 7), generated_palette(3)[2])


def test_a_json_file_of_names_and_colors(tmp_path):
    path = tmp_path / "things.json"
    path.write_text(json.dumps(["road", {"name": "water", "color": [1, 2, 3]}, {"name": "sky"}]))
    classes = class_set(str(path))
    assert classes.names == ("road", "water", "sky")
    assert classes.palette == (generated_palette(3)[0], (1, 2, 3), generated_palette(3)[2])


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", b"[", "is not valid JSON"),
        ("a.json", b'{"road": 1}', "must be a JSON list"),
        ("a.json", b"[]", "names no class"),
        ("a.json", b"[3]", "class 0: 3 has no name"),
        ("a.json", b'["road", {"name": " "}]', "class 1: .* has no name"),
        ("a.json", b'[{"name": "road", "color": [0, 0, 256]}]', r"color of 'road' is \[0, 0, 256\]"),
        ("a.json", b'[{"name": "road", "color": "red"}]', "color of 'road' is 'red'"),
        ("a.json", b'[{"name": "road", "color": [true, 0, 0]}]', "color of 'road'"),
        ("a.json", b'["road", ""]', "class 1: '' has no name"),
        ("a.json", b'[{"name": "road", "colour": [1, 2, 3]}]', "class 0: 'colour' is unknown"),
        ("a.txt", b"sky 128 128 256", "'sky 128 128 256' has three numbers that are no color"),
        ("a.txt", b"road\nsky 0.5 0.5 0.5", "'sky 0.5 0.5 0.5' has three numbers that are no color"),
        ("a.txt", b"sky 1 2 3 4", "'sky 1 2 3 4' has three numbers that are no color"),
        ("a.txt", b"0 road\n1 sky", "every line begins with a number, as '0 road'; give the names alone"),
        ("a.txt", b"0 road 1 2 3\n1 sky 4 5 6", "every line begins with a number"),
        ("a.txt", b"1: road\n2: sky", "every line begins with a number"),
        ("a.txt", b"", "names no class"),
        ("a.txt", b"\xff\xfe\x00", "cannot be read as UTF-8 text"),
    ],
)
def test_malformed_files(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=expected):
        class_set(tmp_path / name)


def test_a_missing_file(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        class_set(tmp_path / "classes.json")
    with pytest.raises(UsageError, match="is a folder; give a file"):
        class_set(tmp_path)


def test_default_classes():
    classes = default_classes(3)
    assert classes.names == ("class 0", "class 1", "class 2")
    assert len(classes.palette) == 3


def test_generated_colors_are_far_apart():
    def distance(left, right):
        return sum((a - b) ** 2 for a, b in zip(left, right, strict=True)) ** 0.5

    closest = {
        count: min(distance(*pair) for pair in itertools.combinations(generated_palette(count), 2))
        for count in (50, 256)
    }
    assert closest[50] > 30
    assert closest[256] > 2
    assert generated_palette(256)[:20] == generated_palette(20)


def test_classes_need_no_torch():
    code = "import sys; import sfpp.export.classes; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("\ud800", r"class 1: the name '\\ud800' holds half of a surrogate pair"),
        ("a\0b", "holds a NUL character"),
        ("a\x1b[31mb", "holds a control character"),
        ("n" * 300, "has 300 characters, and a name has 256 at most"),
    ],
)
def test_names_that_no_library_can_be_given(tmp_path, name, words):
    path = tmp_path / "classes.json"
    for entries in (["road", name], ["road", {"name": name, "color": [1, 2, 3]}]):
        path.write_text(json.dumps(entries))
        with pytest.raises(UsageError, match=words):
            class_set(path)
