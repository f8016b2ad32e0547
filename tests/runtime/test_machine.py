import json
import os

import pytest

from sfpp.runtime import machine as module
from sfpp.runtime.machine import cpu_kind, gpu_kind, machine

INTEL = """\
processor\t: 0
model name\t: Some(R) Processor
flags\t\t: fpu avx2 fma avx512f amx_bf16 amx_tile

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""
ARM = "processor\t: 0\nBogoMIPS\t: 62.50\nFeatures\t: fp asimd bf16 i8mm\n"


def described(monkeypatch, tmp_path, text, function=machine):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(module, "_CPUINFO", tmp_path / "cpuinfo")
    return function()


def test_the_first_core_speaks_for_all(monkeypatch, tmp_path):
    facts = described(monkeypatch, tmp_path, INTEL)
    assert facts["processor"] == "Some(R) Processor"
    assert facts["instruction_sets"] == ["avx2", "fma", "avx512f", "amx_bf16"]


def test_arm_names_its_features(monkeypatch, tmp_path):
    facts = described(monkeypatch, tmp_path, ARM)
    assert facts["instruction_sets"] == ["asimd", "bf16", "i8mm"]
    assert facts["processor"]


@pytest.fixture
def plain(monkeypatch):
    """An x86 machine without any variable of oneDNN."""
    for name in module._OVERRIDES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")


def test_a_kind_of_cpu_is_its_instruction_sets(plain, monkeypatch, tmp_path):
    kind = described(monkeypatch, tmp_path, INTEL, cpu_kind)
    assert kind == "x86_64 avx2 fma avx512f amx_bf16"
    assert described(monkeypatch, tmp_path, INTEL.replace("Some(R)", "Other(R)"), cpu_kind) == kind
    assert described(monkeypatch, tmp_path, INTEL.replace("amx_bf16 ", ""), cpu_kind) == "x86_64 avx2 fma avx512f"
    monkeypatch.setattr(module.platform, "processor", lambda: "Intel64 Family 6")
    assert described(monkeypatch, tmp_path, "", cpu_kind) == "x86_64 Intel64 Family 6"


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_forbidden_instruction_sets_make_another_kind(plain, monkeypatch, tmp_path, name):
    kind = described(monkeypatch, tmp_path, INTEL, cpu_kind)
    monkeypatch.setenv(name, "")
    assert cpu_kind() == kind
    monkeypatch.setenv(name, "AVX2")
    assert cpu_kind() == f"{kind} {name}=AVX2"


def test_a_kind_of_gpu_is_driver_and_cards(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_NVIDIA", tmp_path)
    assert gpu_kind() == ""
    (tmp_path / "version").write_text("NVRM version: Kernel Module  535.54.03\n")
    assert gpu_kind() == "NVRM version: Kernel Module 535.54.03"
    for number, bus in enumerate(("0000:02:00.0", "0000:01:00.0")):
        (tmp_path / "gpus" / bus).mkdir(parents=True)
        (tmp_path / "gpus" / bus / "information").write_text(f"Model: \t\t NVIDIA Card {number}\nIRQ: {number}\n")
    assert gpu_kind() == "NVRM version: Kernel Module 535.54.03 Model: NVIDIA Card 0 Model: NVIDIA Card 1"


def test_a_board_is_named_as_its_firmware_names_it(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_BOARD", tmp_path / "model")
    assert module.board() == ""
    assert "board" not in machine()
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson AGX Orin Developer Kit\0")
    assert machine()["board"] == "NVIDIA Jetson AGX Orin Developer Kit"


def test_this_machine_as_json(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_CPUINFO", tmp_path / "nothing")
    facts = json.loads(json.dumps(machine()))
    assert facts["cores"] == os.cpu_count()
    assert 1 <= facts["usable_cores"] <= facts["cores"]
    assert facts["sfpp"]
    assert facts["onnxruntime"]
    assert "onnxruntime-gpu" not in facts


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="needs sysconf")
def test_memory_is_in_bytes():
    assert 2**28 < machine()["memory_bytes"] < 2**50
