"""Promises about structure: floors, light imports, a complete wheel, samples that run."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from contextlib import nullcontext
from graphlib import CycleError, TopologicalSorter
from importlib import metadata
from pathlib import Path

import pytest
from packaging.metadata import Metadata

import sfpp
from sfpp.export.demo import demo_frame, demo_person
from sfpp.runtime.demo import demo_clip

ROOT = Path(__file__).parents[1]
FLOORS = {
    "runtime": {
        *("torch", "onnx", "onnx_graphsurgeon", "transformers", "jinja2", "PIL"),
        *("sfpp.tooling", "sfpp.export", "sfpp.calibration"),
    },
    "tooling": {"torch", "transformers", "sfpp.export", "sfpp.calibration"},
    "export": {"sfpp.calibration"},
    "calibration": {"torch", "sfpp.export"},
}


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", FLOORS)
def test_no_file_imports_upwards(folder):
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    for path in files:
        for module in imported_modules(path):
            assert not any(module == bad or module.startswith(f"{bad}.") for bad in FLOORS[folder]), (path, module)
            assert module.split(".")[0] not in FLOORS, f"{path} imports {module} without the package"


def is_for_types(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def names_imported(tree, *, top=False):
    """Yield `sfpp....NAME` for each import, also inside functions unless ``top``; those for types are left out."""
    typing = {id(child) for node in ast.walk(tree) if is_for_types(node) for child in ast.walk(node)}
    for node in tree.body if top else ast.walk(tree):
        if id(node) in typing:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, alias.asname) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((f"{node.module}.{alias.name}", alias.asname or alias.name) for alias in node.names)


def import_graph(root):
    """Return which modules of the packages in ``root`` each imports.

    A name that a package's face hands on stands for the module that it comes from, and the face itself is left out.
    """
    trees = {}
    for path in (each for folder in FLOORS for each in (root / folder).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        trees[".".join(("sfpp", *parts))] = ast.parse(path.read_text(encoding="utf-8"))
    faces = {name.removesuffix(".__init__"): tree for name, tree in trees.items() if name.endswith(".__init__")}
    modules = {name: tree for name, tree in trees.items() if not name.endswith(".__init__")}
    handed_on = {
        f"{face}.{shown}": source for face, tree in faces.items() for source, shown in names_imported(tree, top=True)
    }

    def module_of(name):
        while name and name not in modules:
            name = handed_on.get(name) or name.rpartition(".")[0]
        return name

    return {name: {module_of(each) for each, _ in names_imported(tree)} - {name, ""} for name, tree in modules.items()}


def test_imports_never_go_in_a_circle():
    """Not even through imports inside functions, which only hide one."""
    graph = import_graph(ROOT)
    assert len(graph) > 100
    list(TopologicalSorter(graph).static_order())  # CycleError names the modules


@pytest.mark.parametrize(
    ("line", "is_circle"),
    [
        ("def late():\n    from sfpp.runtime.first import one", True),
        ("from sfpp.runtime import one", True),  # the face hands it on
        ("import sfpp.runtime.first", True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from sfpp.runtime.first import one", False),
        ("from sfpp.runtime.third import one", False),
    ],
)
def test_a_circle_is_found_wherever_it_hides(tmp_path, line, is_circle):
    files = {
        "__init__": "from sfpp.runtime.first import one",
        "first": "from sfpp.runtime.second import two\none = two",
        "second": f"{line}\ntwo = 2",
        "third": "one = 1",
    }
    (tmp_path / "runtime").mkdir()
    for name, text in files.items():
        (tmp_path / "runtime" / f"{name}.py").write_text(text, encoding="utf-8")
    with pytest.raises(CycleError) if is_circle else nullcontext():
        list(TopologicalSorter(import_graph(tmp_path)).static_order())


def test_rooms_can_be_looked_through_and_names_tell_them_apart():
    files = [path for folder in FLOORS for path in (ROOT / folder).rglob("*.py")]
    rooms = Counter(path.parent for path in files)
    assert {room: count for room, count in rooms.items() if count > 30} == {}
    names = Counter(path.name for path in files if path.name not in ("__init__.py", "cli.py"))
    twice = {name: count for name, count in names.items() if count > 1}
    assert len(twice) <= 10, twice


def test_what_runs_on_an_emulated_machine_is_there():
    from tests.machines import arm64  # needs torch

    assert [path for path in (arm64.OWN, *arm64.QUICK) if not (ROOT / path).exists()] == []


def run_python(*arguments, **options):
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, **options)


def loaded_by(statement):
    """Return the top-level modules that a fresh interpreter has loaded after ``statement``."""
    script = f"import sys\n{statement}\nprint(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    return set(run_python("-c", script).stdout.splitlines()[-1].split())


def test_the_runtime_loads_no_training_library():
    modules = [
        "sfpp." + ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "runtime").rglob("*.py")
    ]
    loaded = loaded_by("import " + ", ".join(sorted(modules)))
    assert not loaded & {"torch", "onnx", "onnx_graphsurgeon", "transformers"}


def test_a_run_of_the_runtime_loads_no_training_library(model):
    loaded = loaded_by(f"import sfpp.runtime as s; s.load({str(model)!r})(s.read_image({str(demo_frame())!r})).labels")
    assert loaded & {"onnxruntime", "openvino"}
    assert not loaded & {"torch", "onnx", "onnx_graphsurgeon"}


COMMANDS = (
    "sfpp.calibration.cli",
    "sfpp.export.cli",
    "sfpp.export.engine",
    "sfpp.export.parity.cli",
    "sfpp.runtime.bench.cli",
    "sfpp.runtime.cli.run",
)


@pytest.mark.parametrize("option", ["--help", "--version"])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_versions_load_nothing_heavy(command, option):
    loaded = loaded_by(f"import {command} as c\ntry: c.main([{option!r}])\nexcept SystemExit as e: assert e.code == 0")
    heavy = {"torch", "onnx", "onnxruntime", "openvino", "tensorrt_rtx", "cuda", "cv2", "av", "tqdm", "matplotlib"}
    assert not loaded & heavy


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_few_modules_of_our_own(command):
    ending = "print(' '.join(name for name in sys.modules if name.split('.')[0] == 'sfpp'))"
    script = f"import sys, {command} as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n{ending}"
    assert len(run_python("-c", script).stdout.splitlines()[-1].split()) <= 32


def test_one_import_offers_everything_and_loads_nothing_heavy():
    loaded = loaded_by("import sfpp; sfpp.__version__; dir(sfpp)")
    assert not loaded & {"torch", "onnx", "onnxruntime", "openvino", "cv2", "av", "numpy"}
    for name in sfpp.__all__:
        assert getattr(sfpp, name) is not None, name
    for package in (sfpp, sfpp.runtime, sfpp.runtime.video, sfpp.runtime.bench):
        tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
        (typed,) = filter(is_for_types, tree.body)
        imported = {each.name for node in typed.body if isinstance(node, ast.ImportFrom) for each in node.names}
        assert imported == set(package.__all__) - {"__version__"}, package.__name__
    with pytest.raises(AttributeError, match="module 'sfpp' has no attribute 'lod'"):
        sfpp.lod  # noqa: B018
    assert sfpp.__version__ == metadata.version("sfpp")
    assert not (ROOT / "sfpp").exists(), "it would hide an installed sfpp from a Python that is started here"
    assert not (ROOT / "demo").exists(), "it would be what `sfpp-run MODEL demo` segments here"


def test_what_exports_names_the_extra_where_torch_is_missing():
    script = (
        "import sys; sys.modules['torch'] = None\nimport sfpp\ntry: sfpp.export_onnx\nexcept Exception as e: print(e)"
    )
    assert "pip install 'sfpp[export]'" in run_python("-c", script).stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Wheel and source archive of sfpp, the wheel of its demonstration weights, and the copy they were built from."""
    source, folder = tmp_path_factory.mktemp("source") / "sfpp", tmp_path_factory.mktemp("dist")
    skip = shutil.ignore_patterns(".venv", ".git", "build", "out", "*.egg-info", "__pycache__", ".*_cache", "*.onnx")
    shutil.copytree(ROOT, source, ignore=skip)  # setuptools leaves its work beside the source
    for path in (source, source / "demo-weights"):
        run_python("-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, path)
    run_python("-c", f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})", cwd=source)
    return folder, source


def test_the_wheel_is_complete(built):
    folder, source = built
    (wheel,) = folder.glob("sfpp-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        f"sfpp/{path.relative_to(source).as_posix()}"
        for floor in FLOORS
        for path in (source / floor).rglob("*")
        if path.is_file() and path.name != "ruff.toml" and "__pycache__" not in path.parts
    } | {"sfpp/__init__.py", "sfpp/commands.py", "sfpp/py.typed"}
    assert packed == expected
    assert wheel.stat().st_size < 3e6  # half of it is the clip


def test_weights_on_other_terms_are_a_package_of_their_own(built):
    (wheel,), (weights,) = built[0].glob("sfpp-*.whl"), built[0].glob("sfpp_demo-*.whl")
    (source,) = built[0].glob("sfpp-*.tar.gz")
    with zipfile.ZipFile(wheel) as archive, tarfile.open(source) as sources:
        assert not [name for name in (*archive.namelist(), *sources.getnames()) if name.endswith(".safetensors")]
    with zipfile.ZipFile(weights) as archive:
        assert sum(name.endswith(".safetensors") for name in archive.namelist()) == 2
        (facts,) = (archive.read(name) for name in archive.namelist() if name.endswith("METADATA"))
    assert Metadata.from_email(facts).license_expression == "LicenseRef-sfpp-demo"
    script = (
        "import sys; sys.modules['sfpp_demo'] = None\nfrom sfpp.export import demo\n"
        "try: demo.demo_checkpoint()\nexcept Exception as e: print(e)"
    )
    assert re.search(r"with --weights, or pip install \./demo-weights in a clone", run_python("-c", script).stdout)


def test_the_metadata_is_what_an_index_takes(built):
    (wheel,) = built[0].glob("sfpp-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (facts,) = (archive.read(name) for name in archive.namelist() if name.endswith("METADATA"))
    found = Metadata.from_email(facts)  # refuses what the specification does not know
    assert (found.name, found.license_expression) == ("sfpp", "Apache-2.0")
    assert found.description_content_type == "text/markdown"
    assert set(found.provides_extra) == {"bench", "calibrate", "completion", "cpu", "dev", "export", "heic"} | {
        *("openvino", "rtx", "tensorrt", "video", "viewer"),
    }


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_what_is_installed_runs_without_the_source(built, model, tmp_path, kind):
    (packed,) = built[0].glob(f"sfpp-{kind}")
    options = ["-q", "--no-deps", "--no-build-isolation", "--no-compile", "--target", tmp_path / "site"]
    run_python("-m", "pip", "install", *options, packed)
    script = (
        "import sys, sfpp; assert sfpp.__file__.startswith(sys.argv[1]); from sfpp.runtime.cli.run import main; "
        "sys.exit(main(sys.argv[2:]))"
    )
    paths = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    run_python(
        *("-c", script, tmp_path / "site", model, "test://?frames=2", "-o", tmp_path / "out.mp4"),
        env=paths,
        cwd=tmp_path,
    )
    assert (tmp_path / "out.mp4").stat().st_size > 500


@pytest.fixture(scope="module")
def model(demo_export):
    return demo_export(variant="fast", res="320x192").path


@pytest.fixture
def clip(tmp_path):
    """The first second of the demonstration clip."""
    path = tmp_path / "second.mp4"
    with sfpp.open_source(demo_clip()) as source, sfpp.open_sink(path) as sink:
        for frame, _ in zip(source, range(25), strict=False):
            sink.write(frame, frame.image_bgr)
    return path


def test_samples_run(model, demo_export, clip, tmp_path):
    pose = demo_export(task="pose").path
    arguments = {
        "camera_with_viewer.py": [model, "test://?frames=30", 0],
        "masks_to_json.py": [model, "test://?frames=3", tmp_path / "masks"],
        "pose_stream.py": [pose, demo_person()],
        "several_cameras.py": [model, "test://?frames=12&seed=1", "test://?frames=12&seed=2"],
        "video_file.py": [model, clip, tmp_path / "overlay.mp4"],
        "segment_image.py": [model, demo_frame(), tmp_path / "overlay.png"],
        "own_loop.py": [model, clip, "road"],
        "export_and_compare.py": [tmp_path],
        "plain_onnxruntime.py": [model, demo_frame(), tmp_path / "labels.png"],
    }
    assert {path.name for path in (ROOT / "samples").glob("*.py")} == set(arguments)
    printed = {name: run_python(ROOT / "samples" / name, *each).stdout for name, each in arguments.items()}
    assert "labels.shape=(540, 960)" in printed["segment_image.py"]
    assert (tmp_path / "overlay.png").stat().st_size > 10_000
    assert len(re.findall(r"road ahead: \d+%", printed["own_loop.py"])) == 25
    assert re.search(r"open http://127\.0\.0\.1:\d+/", printed["camera_with_viewer.py"])
    assert len(list((tmp_path / "masks").glob("*.png"))) == 3
    assert len((tmp_path / "masks" / "frames.jsonl").read_text().splitlines()) == 3
    assert "wrist (" in printed["pose_stream.py"]
    assert re.search(r"test-[12] +ahead: +\d+% \w+", printed["several_cameras.py"])
    assert (tmp_path / "overlay.mp4").stat().st_size > 10_000
    assert re.search(r"merging keeps 9\d\.\d% of the labels", printed["export_and_compare.py"])


@pytest.mark.parametrize("path", sorted((ROOT / "samples").glob("*.py")), ids=lambda path: path.name)
def test_samples_are_short(path):
    assert len(path.read_text().splitlines()) <= 40


def test_the_map_of_the_folders_is_true():
    """Every path of the map in docs/architecture.md exists, and every folder of code is in it."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    block = text.split("## Map of the folders")[1].split("```")[1]
    named, folder = set(), Path()
    for line in block.splitlines():
        if match := re.match(r"( *)([\w.*-]+/?)", line):
            indent, name = len(match[1]) // 4, match[2]
            folder = Path(*folder.parts[:indent]) / name
            named.add(folder.as_posix())
            assert list(ROOT.glob(folder.as_posix())), folder
    packages = {
        path.parent.relative_to(ROOT).as_posix() for top in FLOORS for path in (ROOT / top).rglob("__init__.py")
    }
    assert packages <= named
