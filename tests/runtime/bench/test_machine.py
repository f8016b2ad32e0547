import json
import os

import pytest

from sfpp.runtime.bench import machine as module
from sfpp.runtime.bench.machine import machine

INTEL = """\
processor\t: 0
model name\t: Some(R) Processor
flags\t\t: fpu avx2 fma avx512f amx_bf16 amx_tile

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""
ARM = "processor\t: 0\nBogoMIPS\t: 62.50\nFeatures\t: fp asimd bf16 i8mm\n"


def described(monkeypatch, tmp_path, text):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(module, "_CPUINFO", tmp_path / "cpuinfo")
    return machine()


def test_the_first_core_speaks_for_all(monkeypatch, tmp_path):
    facts = described(monkeypatch, tmp_path, INTEL)
    assert facts["processor"] == "Some(R) Processor"
    assert facts["instruction_sets"] == ["avx2", "fma", "avx512f", "amx_bf16"]


def test_arm_names_its_features(monkeypatch, tmp_path):
    facts = described(monkeypatch, tmp_path, ARM)
    assert facts["instruction_sets"] == ["asimd", "bf16", "i8mm"]
    assert facts["processor"]


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
