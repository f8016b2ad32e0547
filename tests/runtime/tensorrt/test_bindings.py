"""The fakes against NVIDIA's own bindings, of each version that is promised: names, parameters and enums.

The bindings are fetched as wheels, without the libraries that they call; those are stood in for by empty ones.
"""

import enum
import importlib
import inspect
import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest

# What the bindings want of the libraries when they are loaded.
FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
    *("_ZN11nvuffparser15createUffParserEv", "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi"),  # of TensorRT 8
    *("_ZN14nvcaffeparser117createCaffeParserEv", "_ZN14nvcaffeparser123shutdownProtobufLibraryEv"),
)
# Our name of a class, and NVIDIA's.
CLASSES = {
    "Builder": "Builder",
    "OnnxParser": "OnnxParser",
    "Runtime": "Runtime",
    "_Config": "IBuilderConfig",
    "_Context": "IExecutionContext",
    "_Engine": "ICudaEngine",
    "_Layer": "ILayer",
    "_Network": "INetworkDefinition",
    "_TimingCache": "ITimingCache",
}
OF_RTX = {
    "_Config": "IBuilderConfig",
    "_Engine": "ICudaEngine",
    "_RuntimeCache": "IRuntimeCache",
    "_RuntimeConfig": "IRuntimeConfig",
}
OURS_ALONE = {"cache", "load", "kept", "parse", "data", "flags", "pools", "layers", "output_types"}
# Of the fakes' names those that a version lacks, as the backend and the builder know.
OF_TENSORRT_8 = {"BuilderFlag.FP16", "BuilderFlag.INT8", "BuilderFlag.OBEY_PRECISION_CONSTRAINTS"}
EXPLICIT = {"NetworkDefinitionCreationFlag.EXPLICIT_BATCH"}
SAME = {"HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY"}
READER = {"IStreamReaderV2", "SeekPosition"}
PRECISION = {"ILayer.set_output_type"}
OF_TENSORRT_10 = {"NetworkDefinitionCreationFlag.STRONGLY_TYPED", "DataType.BF16"}
VERSIONS = {
    "8.6.1": ("tensorrt-bindings", OF_TENSORRT_10 | SAME | READER),
    "10.3.0": ("tensorrt-cu12-bindings", SAME | READER),
    "10.16.1.11": ("tensorrt-cu12-bindings", set()),
    "11.4.0.106": ("tensorrt-cu13-bindings", OF_TENSORRT_8 | EXPLICIT | PRECISION),
}
TOLD = """
import enum, importlib, inspect, json, sys
module = importlib.import_module(sys.argv[1])
def told(value):
    if isinstance(value, property):
        return None
    words = inspect.getdoc(value) or ""
    return [line[line.index("(") + 1 : line.rindex(")")] for line in words.splitlines() if "(self" in line]
classes = {}
for name in sys.argv[2].split(","):
    if hasattr(module, name):
        of = getattr(module, name)
        classes[name] = {each: told(inspect.getattr_static(of, each)) for each in dir(of) if each[0] != "_"}
enums = {name: list(each.__members__) for name, each in vars(module).items() if hasattr(each, "__members__")}
types = {}
for name, kind in module.DataType.__members__.items():
    try:
        types[name] = module.nptype(kind).__name__
    except TypeError:
        types[name] = None
print(json.dumps({"version": module.__version__, "classes": classes, "enums": enums, "types": types}))
"""


def python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def told_by(module, **environment):
    names = ",".join(
        [*CLASSES.values(), *OF_RTX.values(), "IStreamReaderV2", "IProfiler", "ILogger", "IProgressMonitor"]
    )
    done = python("-c", TOLD, module, names, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def fetched(folder, package, version):
    done = python("-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), f"{package}=={version}")
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        pytest.skip(f"{package} {version} cannot be fetched for this Python")
    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extractall(folder)


def stand_ins(folder, major):
    """Make the libraries that the bindings name, with nothing behind their functions."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    source = folder / "empty.c"
    source.write_text("".join(f"void {name}(void) {{}}\n" for name in FUNCTIONS))
    for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser", "nvparsers"):
        library = f"lib{name}.so.{major}"
        subprocess.run(
            [compiler, "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", folder / library, source], check=True
        )


def parameters_of(text):
    """Return the names in a signature such as ``self: X, name: str, memory: int = 0``, without the first."""
    names, depth = [""], 0
    for letter in text:
        depth += (letter in "[(<") - (letter in "])>")
        if letter == "," and not depth:
            names.append("")
        else:
            names[-1] += letter
    return [name.partition(":")[0].partition("=")[0].strip() for name in names][1:]


def missing_from(told, fake, classes=CLASSES):
    """Return the names of the fake that the real library lacks; a parameter of another name fails."""
    missing = set()
    for ours, theirs in classes.items():
        real = told["classes"].get(theirs)
        if real is None:
            missing.add(theirs)
            continue
        for name, member in vars(getattr(fake, ours)).items():
            if name.startswith("_") or name in OURS_ALONE:
                continue
            if name not in real:
                missing.add(f"{theirs}.{name}")
            elif inspect.isfunction(member) and real[name]:
                given = list(inspect.signature(member).parameters)[1:]
                known = [parameters_of(each) for each in real[name]]
                assert any(set(given) <= set(each) or len(given) == len(each) for each in known), (theirs, name, known)
    for name, each in vars(fake).items():
        if isinstance(each, type) and issubclass(each, enum.Enum) and each.__module__ == fake.__name__:
            if name not in told["enums"]:
                missing.add(name)
            else:
                missing |= {f"{name}.{member}" for member in each.__members__} - {
                    f"{name}.{member}" for member in told["enums"][name]
                }
    return missing


def check_types(told, fake):
    for name, kind in fake.DataType.__members__.items():
        if name in told["types"]:
            unknown = told["types"][name] is None
            assert unknown == (name in ("BF16", "FP8", "FP4", "INT4", "E8M0"))
            assert unknown or told["types"][name] == kind.value


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_the_fakes_are_as_nvidias_bindings_are(fakes, tmp_path, monkeypatch, version):
    package, lacks = VERSIONS[version]
    fetched(tmp_path, package, version)
    stand_ins(tmp_path, version.partition(".")[0])
    told = told_by("tensorrt_bindings", PYTHONPATH=str(tmp_path), LD_LIBRARY_PATH=str(tmp_path))
    assert told["version"] == version
    monkeypatch.setenv("FAKE_TENSORRT", "10.16.1.11")  # with all names
    fake = importlib.import_module("tensorrt")
    assert missing_from(told, fake) == lacks - {"IStreamReaderV2"}
    check_types(told, fake)
    reader = told["classes"].get("IStreamReaderV2")
    assert (reader is None) == bool(lacks & READER)
    if reader is not None:
        assert [name for name in ("read", "seek") if name not in reader] == []
    assert "report_layer_time" in told["classes"]["IProfiler"]
    assert "log" in told["classes"]["ILogger"]
    assert version == "8.6.1" or "step_complete" in told["classes"]["IProgressMonitor"]


def test_the_fake_is_as_the_installed_tensorrt_rtx_is(fakes):
    if python("-c", "import tensorrt_rtx").returncode:
        pytest.skip("tensorrt-rtx is not installed")
    told = told_by("tensorrt_rtx")
    assert missing_from(told, importlib.import_module("tensorrt")) - {"SeekPosition"} == OF_TENSORRT_8 | EXPLICIT | {
        "ILayer.set_output_type"
    }
    fake = importlib.import_module("tensorrt_rtx")
    assert missing_from(told, fake, OF_RTX) == set()
    assert set(fake.ComputeCapability.__members__) <= set(told["enums"]["ComputeCapability"])
    assert set(fake.CudaGraphStrategy.__members__) <= set(told["enums"]["CudaGraphStrategy"])
    check_types(told, fake)


LEAN = """
from pathlib import Path
import sys
from sfpp.runtime.backends.tensorrt import TensorRtBackend
from sfpp.runtime.errors import SfppError
from sfpp.runtime.tensorrt.library import library_of
library = library_of("tensorrt", purpose="running it", or_lean=True)
print(library.title, library.version, library.is_lean, hasattr(library.module, "TensorFormat"))
try:
    TensorRtBackend(Path(sys.argv[1]))
except SfppError as error:
    print(type(error).__name__, str(error)[:40])
"""


@pytest.mark.slow
def test_the_real_lean_runtime_is_found_and_without_a_card_not_asked(tmp_path):
    folder = tmp_path / "packages"
    package = ("tensorrt-lean-cu13", "tensorrt-lean-cu13-bindings", "tensorrt-lean-cu13-libs")
    done = python("-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), *package)
    if done.returncode:
        pytest.skip("TensorRT's lean runtime cannot be installed here")
    if python("-c", "import tensorrt").returncode == 0:
        pytest.skip("TensorRT itself is installed, and comes first")
    (tmp_path / "a.engine").write_bytes(b"engine")
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    done = python("-c", LEAN, str(tmp_path / "a.engine"), PYTHONPATH=path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("TensorRT's lean runtime 1")
    assert first.endswith("True False")
    assert second.startswith(("BackendError CUDA's cuda", "MissingDependencyError running a.engine needs cuda-python"))
