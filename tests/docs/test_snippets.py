"""Snippets of the pages run as they stand: Python in the order of its page, the loop over videos; JSON is read."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest

import sfpp
from sfpp.export.catalog import recipe_from_file
from sfpp.export.classes import class_set
from sfpp.export.demo import demo_frame
from sfpp.runtime.demo import demo_clip
from tests.docs.test_docs import FENCE, PAGES, ROOT, name_of

POSE = "segformer-b0-pose-hq-192x256.onnx"
FRAMES = 6  # of the clip, to calibrate with


def blocks(page, language):
    """Return the blocks of a page in one language, indented ones too."""
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [re.sub(f"^{each[1]}", "", each[3], flags=re.MULTILINE) for each in found if each[2] == language]


WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]


@pytest.fixture(scope="module")
def exported(demo_export, tmp_path_factory):
    """The models that the pages speak of."""
    folder = tmp_path_factory.mktemp("exported")
    shutil.copy(demo_export(variant="fast", res="320x192").path, folder / "street.onnx")
    shutil.copy(demo_export(task="pose", variant="hq").path, folder / POSE)
    return folder


@pytest.fixture
def desk(exported, tmp_path, monkeypatch):
    """A folder with the files that the pages speak of; the snippets run in it."""
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    shutil.copy(demo_frame(), tmp_path / "photo.jpg")
    for name in ("street.mp4", "people.mp4"):
        shutil.copy(demo_clip(), tmp_path / name)
    (tmp_path / "frames").mkdir()
    with sfpp.open_source(str(demo_clip())) as source:
        for frame, _ in zip(source, range(FRAMES), strict=False):
            cv2.imwrite(str(tmp_path / "frames" / f"{frame.index}.png"), frame.image_bgr)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def module(name, **names):
    made = types.ModuleType(name)
    vars(made).update(names)
    return made


class Node:
    """As much of a ROS node as the snippet needs."""

    published: ClassVar[list] = []

    def __init__(self, name):
        self.name = name

    def create_publisher(self, kind, topic, qos):
        return types.SimpleNamespace(publish=self.published.append)

    def create_subscription(self, kind, topic, callback, qos):
        self.callback = callback


@pytest.fixture
def ros(monkeypatch):
    """An imitation of rclpy that hands one image, with padded rows, to the node that is spun."""
    frame_bgr = cv2.imread(str(demo_frame()))
    height, width = frame_bgr.shape[:2]
    rows = np.zeros((height, 3 * width + 8), np.uint8)
    rows[:, : 3 * width] = frame_bgr.reshape(height, -1)

    def spin(node):
        facts = {"header": "of the camera", "height": height, "width": width, "step": rows.shape[1]}
        node.callback(types.SimpleNamespace(encoding="bgr8", data=rows.tobytes(), **facts))

    policy = types.SimpleNamespace(BEST_EFFORT="best effort")
    for made in (
        module("rclpy", init=lambda: None, spin=spin),
        module("rclpy.node", Node=Node),
        module("rclpy.qos", QoSProfile=types.SimpleNamespace, ReliabilityPolicy=policy),
        module("sensor_msgs"),
        module("sensor_msgs.msg", Image=types.SimpleNamespace),
    ):
        monkeypatch.setitem(sys.modules, made.__name__, made)
    monkeypatch.setattr(Node, "published", [])
    return frame_bgr


def needs_a_card(text):
    return ".engine" in text


def names_of_sfpp(tree):
    """Return the names that a snippet takes from sfpp."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sfpp"
    }


def run(page):
    """Run a page's snippets in one scope, as in a notebook, and return it; one that needs a card is only read."""
    scope = {"__name__": "page"}
    for text in blocks(page, "python"):
        tree = ast.parse(text, filename=name_of(page))
        missing = names_of_sfpp(tree) - set(sfpp.__all__)
        assert not missing, f"{name_of(page)}: sfpp offers no {', '.join(sorted(missing))}"
        if not needs_a_card(text):
            exec(compile(tree, name_of(page), "exec"), scope)
    return scope


@pytest.mark.parametrize("page", [page for page in WITH_PYTHON if page.name != "how-to.md"], ids=name_of)
def test_python_runs_in_the_order_of_the_page(page, desk, capsys):
    run(page)
    printed = capsys.readouterr().out
    assert printed or page.name == "jetson.md"


def test_only_the_jetsons_loop_needs_a_card():
    assert [name_of(page) for page in WITH_PYTHON if any(map(needs_a_card, blocks(page, "python")))] == [
        "docs/jetson.md"
    ]


def test_recipes_give_what_they_say(desk, ros):
    scope = run(ROOT / "docs/how-to.md")
    result, road = scope["result"], scope["road"]
    only_road = sfpp.read_image("road.png")
    assert only_road[~road].max() == 0
    assert (only_road[road] == scope["frame_bgr"][road]).all()
    # Sure of what it is sure of at the logits' own size, so nearly every sure pixel has the label of the highest score.
    assert scope["confidence"].shape == result.labels.shape
    assert scope["confidence"].min() > 0
    assert scope["confidence"].max() <= 1
    assert 0 < np.mean(scope["labels"] == 255) < 0.5
    at_borders = cv2.morphologyEx(result.labels, cv2.MORPH_GRADIENT, np.ones((9, 9), np.uint8)) > 0
    assert scope["confidence"][at_borders].mean() < scope["confidence"][~at_borders].mean() - 0.1
    outlined = np.zeros_like(result.labels)
    for each in scope["annotations"]:
        cv2.fillPoly(outlined, [np.array(each["segmentation"][0]).reshape(-1, 2)], 1)
    assert np.mean(road[outlined == 1]) > 0.9
    assert np.mean(outlined[road] == 1) > 0.9
    (published,) = Node.published
    assert (published.encoding, published.header) == ("mono8", "of the camera")
    sent = np.frombuffer(published.data, np.uint8).reshape(published.height, published.step)
    assert (sent == scope["model"](ros).labels).all()


def test_the_loop_over_videos_goes_on_where_it_ended(desk):
    (loop,) = (text for text in blocks(ROOT / "docs/how-to.md", "sh") if "for video in" in text)
    (desk / "videos").mkdir()
    with sfpp.open_source("street.mp4") as source:
        frames = [frame for frame, _ in zip(source, range(2), strict=False)]
    for name in ("a.mp4", "c.mp4"):
        with sfpp.open_sink(f"videos/{name}") as sink:
            for frame in frames:
                sink.write(frame, frame.image_bgr)
    (desk / "videos/b.mp4").write_bytes(demo_clip().read_bytes()[:2000])

    def run_loop():
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        subprocess.run(["bash", "-c", loop], check=True, env={**os.environ, "PATH": path}, capture_output=True)
        return {each.name: each.stat().st_mtime_ns for each in (desk / "done").iterdir()}

    first = run_loop()
    assert set(first) == {"a.mp4", "c.mp4"}
    assert (desk / "failed.txt").read_text() == "videos/b.mp4\n"
    (desk / "done/c.mp4").unlink()
    second = run_loop()
    assert second["a.mp4"] == first["a.mp4"]
    assert set(second) == set(first)


FIVE_LINES = """
import sfpp
model = sfpp.load("street.onnx")
frame_bgr = sfpp.read_image("photo.jpg")
result = model(frame_bgr)
print(result.labels.shape, model.description)
"""
FIVE_LINES_OF_POSE = """
import sfpp
with sfpp.load("pose.onnx") as model:
    pose = model(sfpp.read_image("photo.jpg"), [(70, 30, 60, 160)])
    for frame, people in model.stream("people.mp4", max_frames=2):
        print(frame.time_s, people.names, pose.keypoints_xy.shape)
"""
LIKE_AN_INSTALLED_PACKAGE = """
[mypy]
[mypy-sfpp.*]
ignore_errors = True
[mypy-torch.*,onnx.*,onnxruntime.*,openvino.*,cv2.*,av.*,aiohttp.*,PIL.*]
follow_imports = skip
"""


def test_programs_pass_a_strict_type_checker(tmp_path):
    pytest.importorskip("mypy")
    # It does not see through the package mapping of an editable install.
    links = {"__init__.py": "package/__init__.py", "py.typed": "package/py.typed"}
    links |= {name: name for name in ("runtime", "tooling", "export", "calibration")}
    (tmp_path / "installed/sfpp").mkdir(parents=True)
    for name, path in links.items():
        (tmp_path / "installed/sfpp" / name).symlink_to(ROOT / path)
    (tmp_path / "mypy.ini").write_text(LIKE_AN_INSTALLED_PACKAGE)
    programs = {
        "five_lines.py": FIVE_LINES,
        "five_lines_of_pose.py": FIVE_LINES_OF_POSE,
        "wrong.py": FIVE_LINES.replace("description", "descriptoin"),
        "readme.py": "".join(blocks(ROOT / "README.md", "python")),
        "run.py": "".join(blocks(ROOT / "docs/run.md", "python")),
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    words = [sys.executable, "-m", "mypy", "--strict", "--config-file", "mypy.ini", *programs]
    environment = {**os.environ, "MYPYPATH": "installed"}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(errors) == 1, done.stdout + done.stderr
    assert errors[0].startswith('wrong.py:6: error: "OpenedModel[Any]" has no attribute "descriptoin"')


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "json")], ids=name_of)
def test_json_is_what_the_commands_read(page, tmp_path):
    for number, text in enumerate(blocks(page, "json")):
        entries = json.loads(text)
        if "kv_mode" in text:
            path = tmp_path / f"{number}.json"
            path.write_text(text, encoding="utf-8")
            assert recipe_from_file(path).merges_bipartite
        elif isinstance(entries, list):
            path = tmp_path / f"{number}.json"
            path.write_text(text, encoding="utf-8")
            assert len(class_set(path, count=len(entries)).names) == len(entries)


def test_the_image_for_a_pc_is_of_a_wheel_and_runs_as_a_user():
    (text,) = blocks(ROOT / "docs/how-to.md", "dockerfile")
    words = [line.split(maxsplit=1) for line in text.splitlines()]
    assert ["COPY", "wheel /wheel"] in words
    assert ["USER", "sfpp"] in words
    assert words[-1] == ["ENTRYPOINT", '["sfpp-run"]']
