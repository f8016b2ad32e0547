"""Building, with a fake TensorRT in a real process of its own."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from sfpp.runtime.contract import METADATA_KEY, contract_from_json
from sfpp.runtime.errors import BackendError, ContractError, ModelFileError, SfppError, UsageError
from sfpp.runtime.files import sha256_of
from sfpp.runtime.tensorrt import EngineSettings, build_engine
from tests.runtime.backends.graphs import write_graph, write_sums
from tests.runtime.tensorrt.conftest import FAKES
from tests.runtime.video.clips import CONTRACT

# A shell that starts a process in the background lets it ignore Ctrl-C, and its children too.
BUILD = """
import signal, sys
from sfpp.runtime.tensorrt import build_engine
signal.signal(signal.SIGINT, signal.default_int_handler)
build_engine(sys.argv[1], backend="tensorrt")
"""


@pytest.fixture
def model(tmp_path):
    return write_sums(tmp_path / "model.onnx", metadata={METADATA_KEY: CONTRACT.to_json()})


def built_with(path):
    """Return what the fake builder was told, and the model it was given."""
    _, facts, model = path.read_bytes().split(b"\n", 2)
    return json.loads(facts), model


def test_the_engine_is_plain_bytes_with_its_contract_beside_it(fakes, model, monkeypatch):
    monkeypatch.setenv("FAKE_CARD", "NVIDIA Thor:11.0")
    seen = []
    report = build_engine(model, backend="tensorrt", progress=lambda *step: seen.append(step))
    assert report.path == model.with_suffix(".engine")
    facts, content = built_with(report.path)
    assert content == model.read_bytes()
    assert facts == {  # strongly typed
        "flags": [],
        "network": 2,
        "pools": {},
        "dla": ["GPU", -1],
        "hardware": None,
        "precisions": {},
    }
    contract = contract_from_json(report.sidecar.read_text())
    assert contract == report.contract
    assert dataclasses.replace(contract, engine=None) == CONTRACT
    engine = contract.engine
    assert (engine.library, engine.version) == ("tensorrt", "10.3.0")
    assert (engine.devices, engine.card, engine.multiprocessors) == (("sm110",), "NVIDIA Thor", 16)
    assert engine.onnx_sha256 == sha256_of([model])
    assert report.size_bytes == report.path.stat().st_size
    assert report.command == (
        f"/usr/src/tensorrt/bin/trtexec --onnx={model} --saveEngine={report.path} --stronglyTyped --skipInference"
    )
    assert seen[0] == ("Timing", 0, 3)


def test_every_setting_reaches_the_builder_and_the_equivalent_command(fakes, model, tmp_path):
    settings = EngineSettings(
        workspace_bytes=3 << 29,
        timing_cache=tmp_path / "times.bin",
        dla=1,
        version_compatible=True,
        hardware_compatible=True,
    )
    report = build_engine(model, tmp_path / "a.plan", backend="tensorrt", settings=settings)
    facts, _ = built_with(tmp_path / "a.plan")
    assert facts["pools"] == {"WORKSPACE": 3 << 29}
    assert facts["dla"] == ["DLA", 1]
    assert facts["flags"] == ["VERSION_COMPATIBLE", "GPU_FALLBACK"]
    assert facts["hardware"] == "AMPERE_PLUS"
    for word in (
        "--memPoolSize=workspace:1536M",
        f"--timingCacheFile={tmp_path / 'times.bin'}",
        "--useDLACore=1 --allowGPUFallback",
        "--versionCompatible",
        "--hardwareCompatibilityLevel=ampere+",
    ):
        assert word in report.command
    record = report.contract.engine
    assert (record.version_compatible, record.hardware_compatible, record.dla) == (True, True, 1)


def test_a_version_that_builds_for_one_card_only(fakes, model):
    with pytest.raises(UsageError, match=r"TensorRT 10\.3\.0 builds .*leave --same-capability off.*from 10\.9 on"):
        build_engine(model, backend="tensorrt", settings=EngineSettings(same_capability=True))


def test_one_engine_for_all_cards_of_a_kind(fakes, model, monkeypatch):
    monkeypatch.setenv("FAKE_TENSORRT", "10.16.1.11")
    report = build_engine(model, backend="tensorrt", settings=EngineSettings(same_capability=True))
    facts, _ = built_with(report.path)
    assert facts["hardware"] == "SAME_COMPUTE_CAPABILITY"
    assert "--hardwareCompatibilityLevel=sameComputeCapability" in report.command
    assert report.contract.engine.same_capability
    assert report.contract.engine.devices == ("sm87",)


@pytest.mark.parametrize(
    ("precision", "kept"),
    [
        ("fp32", {}),
        ("fp16", {name: ["FLOAT"] for name in ("plain", "norm")}),
        ("int8", {name: ["FLOAT"] for name in ("plain", "norm")}),
    ],
)
def test_tensorrt_8_is_held_to_the_types_of_the_file(fakes, tmp_path, monkeypatch, precision, kept):
    """Of float32 are a plain layer and a norm; one is float16, and one takes dequantized values."""
    monkeypatch.setenv("FAKE_TENSORRT", "8.6.2")
    node = helper.make_node
    constants = [
        helper.make_tensor("scale", TensorProto.FLOAT, [], [0.1]),
        helper.make_tensor("zero", TensorProto.INT8, [], [0]),
        helper.make_tensor("ones", TensorProto.FLOAT, [3], [1.0] * 3),
    ]
    nodes = [
        *(node("Constant", [], [each.name], value=each) for each in constants),
        node("Add", ["x", "x"], ["plain"]),
        node("LayerNormalization", ["plain", "ones"], ["norm"]),
        node("Cast", ["norm"], ["half"], to=TensorProto.FLOAT16),
        node("Mul", ["half", "half"], ["product"]),
        node("Cast", ["product"], ["float"], to=TensorProto.FLOAT),
        node("QuantizeLinear", ["float", "scale", "zero"], ["quantized"]),
        node("DequantizeLinear", ["quantized", "scale", "zero"], ["dequantized"]),
        node("Neg", ["dequantized"], ["y"]),
    ]
    contract = dataclasses.replace(CONTRACT, precision=precision)
    metadata = {METADATA_KEY: contract.to_json()}
    model = write_graph(tmp_path / "a.onnx", nodes, {"x": (2, 3)}, {"y": (2, 3)}, metadata=metadata)
    facts, _ = built_with(build_engine(model, backend="tensorrt").path)
    assert facts["precisions"] == kept


def test_the_timing_cache_grows_and_one_of_another_card_is_replaced(fakes, model, tmp_path):
    cache = tmp_path / "times.bin"
    for expected in (b"measured;", b"measured;measured;"):
        build_engine(model, backend="tensorrt", settings=EngineSettings(timing_cache=cache))
        assert cache.read_bytes() == expected
    cache.write_bytes(b"other card")
    build_engine(model, backend="tensorrt", settings=EngineSettings(timing_cache=cache))
    assert cache.read_bytes() == b"measured;"


@pytest.mark.parametrize(
    ("version", "precision", "network", "flags", "words"),
    [
        ("8.6.2", "fp32", 1, [], "a.engine --skipInference"),
        ("8.6.2", "int8", 1, ["INT8", "FP16", "OBEY_PRECISION_CONSTRAINTS"], "--int8 --fp16 --skipInference"),
        ("10.3.0", "int8", 2, [], "--stronglyTyped --skipInference"),
        ("11.4.1", "fp16", 0, [], "a.engine --skipInference"),
    ],
)
def test_precision_is_the_files_whatever_the_version(
    fakes, tmp_path, monkeypatch, version, precision, network, flags, words
):
    monkeypatch.setenv("FAKE_TENSORRT", version)
    contract = dataclasses.replace(CONTRACT, precision=precision)
    model = write_sums(tmp_path / "a.onnx", metadata={METADATA_KEY: contract.to_json()})
    report = build_engine(model, backend="tensorrt")
    facts, _ = built_with(report.path)
    assert (facts["network"], facts["flags"]) == (network, flags)
    assert words in report.command


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("does not parse", ModelFileError, r"node 'head/foreign' \(Foreign\): no importer registered"),
        ("gives up", BackendError, "does not build model.onnx: no kernel for node 7"),
        ("is killed", BackendError, "killed, most likely by the system because memory ran out.*--workspace 512MiB"),
        ("crashes", BackendError, r"ended by signal 6 \(SIGABRT\), which is a fault in TensorRT"),
    ],
)
def test_a_build_that_fails_says_why_and_leaves_nothing(fakes, fault, model, name, error, message):
    fault(name)
    with pytest.raises(error, match=message):
        build_engine(model, backend="tensorrt")
    assert list(model.parent.glob("*")) == [model]


def test_the_contract_is_in_its_place_before_the_engine(fakes, model, monkeypatch):
    placed, replace = [], Path.replace

    def told(self, target):
        placed.append(Path(target).name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", told)
    build_engine(model, backend="tensorrt")
    assert placed == ["model.json", "model.engine"]


def test_an_engine_is_never_without_its_contract(fakes, model, monkeypatch):
    def fails(self):
        raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")

    monkeypatch.setattr(type(CONTRACT), "to_json", fails)
    with pytest.raises(UnicodeEncodeError):
        build_engine(model, backend="tensorrt")
    assert list(model.parent.iterdir()) == [model]


def test_a_link_to_the_model_is_the_model(fakes, model):
    for name, link in (("soft.engine", Path.symlink_to), ("hard.engine", Path.hardlink_to)):
        link(model.with_name(name), model)
        before = model.read_bytes()
        with pytest.raises(UsageError, match=f"{name} is the model itself"):
            build_engine(model, model.with_name(name), backend="tensorrt")
        assert model.read_bytes() == before
    model.with_name("a.json").symlink_to(model)
    with pytest.raises(UsageError, match=r"a\.json is named twice"):
        build_engine(model, model.with_name("a.engine"), backend="tensorrt")


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of file sizes")
def test_a_disk_that_takes_no_more_is_not_the_librarys_fault(fakes, model):
    program = """
import resource, sys
from sfpp.runtime.tensorrt import build_engine
resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
build_engine(sys.argv[1], backend="tensorrt")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FAKES), *filter(None, sys.path)])}
    command = [sys.executable, "-c", program, str(model)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert f"cannot write {model.with_suffix('.engine')}: the file would exceed the allowed file size" in done.stderr
    assert list(model.parent.iterdir()) == [model]


def test_a_name_that_is_no_utf8_is_not_the_librarys_fault(fakes, model):
    odd = model.rename(model.with_name(os.fsdecode(b"b\xffd.onnx")))
    with pytest.raises(UsageError, match="is no UTF-8, which TensorRT needs; rename it"):
        build_engine(odd, backend="tensorrt")


def test_a_library_may_print_as_much_as_it_likes(fakes, fault, model):
    fault("talks")
    assert build_engine(model, backend="tensorrt").size_bytes > 0


def test_ctrl_c_ends_the_build_and_leaves_nothing(fakes, fault, model):
    fault("takes long")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FAKES), *filter(None, sys.path)])}
    process = subprocess.Popen([sys.executable, "-c", BUILD, str(model)], env=environment, stderr=subprocess.PIPE)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    worker = ""
    while not worker:  # the worker has started
        time.sleep(0.05)
        worker = children.read_text().strip()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, words = process.communicate()
    assert b"KeyboardInterrupt" in words
    deadline = time.monotonic() + 30
    while Path(f"/proc/{worker}/cmdline").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}/cmdline").exists()
    assert list(model.parent.glob("*")) == [model]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.json", "is no name that an engine is opened by"),
        ("model.onnx", "is the model itself"),
        ("model.onnx/a.engine", "is no folder"),
        ("street", r"street is no name that an engine is opened by; expected one in \.engine, \.plan, \.trt"),
        ("other.onnx", "is no name that an engine is opened by"),
        ("taken.engine", r"taken\.json: it is a folder"),
    ],
)
def test_names_that_an_engine_cannot_have(fakes, model, name, message):
    (model.parent / "taken.json").mkdir()
    with pytest.raises(SfppError, match=message):
        build_engine(model, model.parent / name, backend="tensorrt")
    assert name == model.name or not (model.parent / name).is_file()


def test_a_model_must_say_what_it_takes(fakes, tmp_path):
    with pytest.raises(ModelFileError, match=r"nothing\.onnx is not a file"):
        build_engine(tmp_path / "nothing.onnx", backend="tensorrt")
    foreign = write_sums(tmp_path / "foreign.onnx")
    with pytest.raises(ContractError, match=r"--contract FILE\.json"):
        build_engine(foreign, backend="tensorrt")
    assert build_engine(foreign, backend="tensorrt", contract=CONTRACT).contract.engine.card == "NVIDIA Orin"


def test_a_size_that_is_not_fixed_is_refused(fakes, tmp_path):
    metadata = {METADATA_KEY: CONTRACT.to_json()}
    model = write_graph(tmp_path / "a.onnx", [], {"x": ["n", 3]}, {"x": ["n", 3]}, metadata=metadata)
    with pytest.raises(UsageError, match=r"the input 'x' of a\.onnx has no fixed size \(\?, 3\)"):
        build_engine(model, backend="tensorrt")


@pytest.mark.parametrize(("precision", "lines"), [("int8", 2), ("fp16", 1)])
def test_int8_for_rtx_cards_is_advised_against(tmp_path, precision, lines):
    pytest.importorskip("tensorrt_rtx")
    contract = dataclasses.replace(CONTRACT, precision=precision)
    model = write_sums(tmp_path / "a.onnx", metadata={METADATA_KEY: contract.to_json()})
    told = []
    build_engine(model, backend="tensorrt-rtx", notify=told.append)
    assert len(told) == lines
    assert ("the FP16 file is the better choice" in told[-1]) == (precision == "int8")


def test_an_accelerator_that_is_not_there(fakes, model):
    with pytest.raises(UsageError, match=r"no deep learning accelerator 2 .* which has 2; leave --dla off"):
        build_engine(model, backend="tensorrt", settings=EngineSettings(dla=2))
