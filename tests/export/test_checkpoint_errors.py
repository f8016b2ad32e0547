"""What is wrong with a checkpoint is said in one message, and nothing in it is ever executed."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sfpp.export.checkpoints import read_checkpoint
from sfpp.export.demo import demo_checkpoint
from sfpp.runtime.errors import CheckpointError


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return load_file(demo_checkpoint())


def read_demo() -> dict[str, torch.Tensor]:
    return read_checkpoint(demo_checkpoint()).state


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def refused_state(folder: Path, state: object) -> str:
    torch.save(state, folder / "weights.pth")
    return refused(folder / "weights.pth")


# Files that are no checkpoints


def test_a_missing_path(tmp_path):
    assert "does not exist; give a .pth" in refused(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("name", ["weights.pth", "model.safetensors"])
def test_an_empty_file(tmp_path, name):
    (tmp_path / name).touch()
    assert "is empty (0 bytes)" in refused(tmp_path / name)


@pytest.mark.parametrize("name", ["notes.txt", "weights.pth", "model.safetensors"])
def test_a_text_file(tmp_path, name):
    (tmp_path / name).write_text("Gewichte für später\n" * 60, encoding="utf-8")
    assert "is a text file, not a checkpoint" in refused(tmp_path / name)


def test_text_files_that_stand_in_for_a_download(tmp_path):
    pointer, page = tmp_path / "pointer.bin", tmp_path / "page.pth"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    page.write_text("<!DOCTYPE html>\n<title>Sign in</title>")
    assert "Git LFS pointer: run `git lfs pull`" in refused(pointer)
    assert "a web page" in refused(page)


def test_an_onnx_file(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08\x12\x07pytorch")
    assert "is an ONNX file, which is already exported" in refused(tmp_path / "model.onnx")


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize("kept", [0.01, 0.5, 0.999])
def test_a_truncated_torch_file(tmp_path, weights, kept, old_format):
    path = tmp_path / "weights.pth"
    torch.save(weights, path, _use_new_zipfile_serialization=not old_format)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert "truncated or damaged" in refused(path)


@pytest.mark.parametrize("kept", [7, 5_000, -1])
def test_a_truncated_safetensors_file(tmp_path, kept):
    path = tmp_path / "model.safetensors"
    path.write_bytes(demo_checkpoint().read_bytes()[:kept])
    assert "truncated or damaged" in refused(path)


def test_random_bytes(tmp_path):
    (tmp_path / "weights.pth").write_bytes(np.random.default_rng(0).bytes(4096))
    assert "nothing was executed" in refused(tmp_path / "weights.pth")


def test_a_folder_without_weights(tmp_path):
    assert "neither model.safetensors nor pytorch_model.bin; give a .pth" in refused(tmp_path)
    (tmp_path / "iter_160000.pth").touch()
    assert "it has iter_160000.pth: give the file itself" in refused(tmp_path)


@pytest.mark.parametrize(
    ("weight_map", "expected"),
    [
        ({"a": "model-00001-of-00002.safetensors"}, "which is missing; copy all 1 weight files"),
        ({"a": "../secret.safetensors"}, "expected the name of a file beside it"),
        ({}, "has no weight_map"),
    ],
)
def test_a_bad_index_of_shards(tmp_path, weight_map, expected):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=expected):
        read_checkpoint(tmp_path)


# Networks that do not fit


def test_missing_unexpected_and_misshapen_keys_are_all_listed(tmp_path, weights):
    state = dict(weights)
    del state["backbone.layers.1.1.0.norm1.bias"]
    state["backbone.layers.0.3.weight"] = torch.zeros(3)
    state["decode_head.convs.2.conv.weight"] = torch.zeros(256, 64, 1, 1)
    message = refused_state(tmp_path, state)
    assert "does not fit the MMSegmentation style" in message
    assert "1 missing: backbone.layers.1.1.0.norm1.bias. " in message
    assert "1 unexpected: backbone.layers.0.3.weight. " in message
    assert "decode_head.convs.2.conv.weight (256, 64, 1, 1), expected (256, 160, 1, 1)" in message


def test_a_long_list_ends_in_a_count(tmp_path, weights):
    state = {key: value for key, value in weights.items() if ".norm2." not in key}
    message = refused_state(tmp_path, state)
    assert "16 missing: " in message
    assert ", and 6 more. " in message
    assert message.endswith(
        "Give the state dictionary of one such network: whole, unchanged, and without copies such as averaged weights"
    )
    assert message.count("norm2") == 10


@pytest.mark.parametrize("key", ["backbone.layers.2.0.projection.weight", "decode_head.conv_seg.weight"])
def test_a_key_that_tells_the_size_is_named_when_missing(tmp_path, weights, key):
    message = refused_state(tmp_path, {name: value for name, value in weights.items() if name != key})
    assert f"{key} is missing, without which the size is unknown" in message


def test_a_missing_spatial_reduction_is_missing_keys(tmp_path, weights):
    state = {key: value for key, value in weights.items() if ".layers.0.1.1.attn.sr" not in key}
    assert "2 missing: backbone.layers.0.1.1.attn.sr.weight, backbone.layers.0.1.1.attn.sr.bias" in refused_state(
        tmp_path, state
    )


def test_an_unknown_size_lists_the_known_ones(tmp_path, weights):
    state = {key: value for key, value in weights.items() if ".layers.3.1.1." not in key}
    message = refused_state(tmp_path, state)
    assert "channels (32, 64, 160, 256) and blocks (2, 2, 2, 1) (MMSegmentation style)" in message
    assert "B5 (64, 128, 320, 512), (3, 6, 40, 3)" in message


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite(tmp_path, weights, bad):
    state = {key: value.clone() for key, value in weights.items()}
    state["decode_head.fusion_conv.conv.weight"][3, 5] = bad
    message = refused_state(tmp_path, state)
    assert "not finite numbers in decode_head.fusion_conv.conv.weight: the training diverged" in message


def test_a_tensor_that_is_not_finite_is_named_once(tmp_path, weights):
    key = "backbone.layers.3.1.0.attn.attn.in_proj_weight"  # queries, keys and values are in it
    state = {**weights, key: torch.full_like(weights[key], float("nan"))}
    assert refused_state(tmp_path, state).count(key) == 1


def test_a_variance_below_zero(tmp_path, weights):
    key = "decode_head.convs.2.bn.running_var"
    state = {**weights, key: weights[key].clone()}
    state[key][3] = -0.1
    message = refused_state(tmp_path, state)
    assert "variances below 0 (running_var, read as head.projections.2.bn.running_var)" in message


def test_a_block_number_beyond_reason(tmp_path, weights):
    """Python refuses to read numbers of more than 4300 digits."""
    state = {**weights, f"backbone.layers.0.1.{'9' * 5000}.norm1.weight": torch.ones(32)}
    assert "1 unexpected: backbone.layers.0.1.9999" in refused_state(tmp_path, state)


def test_quantized_weights(tmp_path, weights):
    state = {**weights, "decode_head.conv_seg.weight": torch.zeros(11, 256, 1, 1, dtype=torch.int8)}
    assert "1 not floating-point: decode_head.conv_seg.weight (torch.int8)" in refused_state(tmp_path, state)


def test_an_encoder_without_a_head(tmp_path, weights):
    encoder = {key: value for key, value in weights.items() if key.startswith("backbone.")}
    message = refused_state(tmp_path, encoder)
    assert "without a segmentation head (no key begins with decode_head.fusion_conv.)" in message
    classifier = {key.removeprefix("backbone."): value for key, value in encoder.items()}
    message = refused_state(tmp_path, {**classifier, "head.weight": torch.zeros(1000, 256)})
    assert "found instead head.weight" in message


def test_other_networks(tmp_path):
    message = refused_state(tmp_path, {"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.bias": torch.zeros(10)})
    assert "not a SegFormer or EDAFormer in a known style: it has keys such as conv1.weight, fc.bias" in message
    message = refused_state(
        tmp_path, {"backbone.block1.0.attn.sr.weight": torch.zeros(1), "decode_head.attn3.norm1.bias": torch.zeros(1)}
    )
    assert "backbone.patch_embed1.proj.weight is missing" in message
    assert "(EDAFormer style)" in message


def test_something_else_than_a_state_dictionary(tmp_path):
    assert "holds a list, expected a state dictionary" in refused_state(tmp_path, [torch.zeros(3)])
    assert "holds a Tensor" in refused_state(tmp_path, torch.zeros(3))
    assert "has no tensors where a state dictionary should be (found: epoch)" in refused_state(tmp_path, {"epoch": 3})
    assert "(found: nothing)" in refused_state(tmp_path, {"state_dict": {}})


# Pickles


class RunsCode:
    """Writes a file when unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return exec, (f"open({str(self.proof)!r}, 'w').close()",)


class RunsCommand:
    """Starts a shell when unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return os.system, (f"touch {self.proof}",)


@pytest.mark.parametrize("danger", [RunsCode, RunsCommand])
@pytest.mark.parametrize("old_format", [False, True])
def test_code_in_a_pickle_is_named_and_not_run(tmp_path, weights, danger, old_format):
    path, proof = tmp_path / "weights.pth", tmp_path / "proof"
    torch.save({**weights, "extra": danger(proof)}, path, _use_new_zipfile_serialization=not old_format)
    message = refused(path)
    named = "posix.system" if danger is RunsCommand else "exec"
    assert f"holds a pickle that refers to {named} and would run code" in message
    assert "nothing was executed" in message
    assert "torch.save(model.state_dict(), 'weights.pth')" in message
    assert not proof.exists()


@pytest.mark.parametrize(
    "name",
    [
        *("builtins.eval", "builtins.__import__", "builtins.open", "subprocess.Popen", "shutil.rmtree", "sys.exit"),
        *("runpy.run_path", "socket.socket", "importlib.import_module", "nt.system", "operator.methodcaller"),
        *("torch.hub.load", "torch.load", "pickle.loads", "_pickle.loads", "types.FunctionType", "ctypes.CDLL"),
        *("http.client.HTTPSConnection", "torch.utils.cpp_extension.load_inline", "numpy.load", "codecs.open"),
    ],
)
def test_names_that_only_an_attack_needs_are_refused(tmp_path, name):
    """Even inside objects that are passed over, and whether or not they would be called."""
    module, _, attribute = name.rpartition(".")
    inner = f"c{module}\n{attribute}\n".encode()
    content = b"\x80\x02}(U\x01acargparse\nNamespace\n)\x81}U\x01x" + inner + b"sbu."
    (tmp_path / "weights.pth").write_bytes(content)
    assert f"refers to {name.removeprefix('builtins.')} and would run code" in refused(tmp_path / "weights.pth")


def test_so_many_names_are_no_checkpoint(tmp_path):
    names = b"".join(b"cmodule\nname%d\n" % index for index in range(300))
    (tmp_path / "weights.pth").write_bytes(b"\x80\x02" + names + b"}.")
    assert "refers to module.name249 and would run code" in refused(tmp_path / "weights.pth")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_are_not_run(tmp_path, protocol):
    path, proof = tmp_path / "weights.pkl", tmp_path / "proof"
    path.write_bytes(pickle.dumps({"state_dict": RunsCommand(proof)}, protocol=protocol))
    refused(path)
    assert not proof.exists()


class Buffers:
    """What mmengine's HistoryBuffer is to a pickle: its state has methods of its own, which are found by getattr."""

    def lowest(self):
        raise AssertionError("a method named in the file was called")

    def __getstate__(self):
        return {**self.__dict__, "statistics_methods": {"min": type(self).lowest}}

    def __setstate__(self, state):
        raise AssertionError("the class named in the file was used")


def save_as_mmengine(path: Path, weights: dict[str, torch.Tensor], monkeypatch) -> None:
    """Write what mmengine's runner writes: a log of numpy arrays inside objects of its own class."""
    HistoryBuffer = type("HistoryBuffer", (Buffers,), {"__module__": "mmengine.logging.history_buffer"})  # noqa: N806
    lowest = types.FunctionType(Buffers.lowest.__code__, globals(), "lowest")
    lowest.__module__, lowest.__qualname__ = HistoryBuffer.__module__, "HistoryBuffer.lowest"
    HistoryBuffer.lowest = lowest
    for name in ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["mmengine.logging.history_buffer"].HistoryBuffer = HistoryBuffer
    log = HistoryBuffer()
    log.max_length, log._log_history, log._count_history = 1000, np.arange(3.0), np.ones(3, np.int64)
    hub = {"log_scalars": {"train/loss": log}, "runtime_info": {"best": np.float64(0.7)}, "resumed_keys": {}}
    meta = {"dataset_meta": {"classes": ["a"] * 11}, "iter": np.int64(160000), "seed": 1}
    torch.save({"meta": meta, "state_dict": OrderedDict(weights), "message_hub": hub}, path)
    assert b"cbuiltins\ngetattr\n" in pickled_part(path) or b"c__builtin__\ngetattr\n" in pickled_part(path)


def test_mmengine_logs_are_passed_over(tmp_path, weights, monkeypatch):
    path = tmp_path / "iter_160000.pth"
    save_as_mmengine(path, weights, monkeypatch)
    allowed = set(torch.serialization.get_safe_globals())
    checkpoint = read_checkpoint(path)
    assert checkpoint.classes == ("a",) * 11
    assert all(torch.equal(checkpoint.state[key], value) for key, value in read_demo().items())
    (note,) = checkpoint.notes
    assert note == "objects beside the weights were passed over, and nothing of them was run: builtins.getattr"
    assert set(torch.serialization.get_safe_globals()) == allowed


def test_mmengine_logs_of_the_other_numpy_are_passed_over(tmp_path, weights, monkeypatch):
    path, renamed = tmp_path / "here.pth", tmp_path / "elsewhere.pth"
    save_as_mmengine(path, weights, monkeypatch)
    here, there = b"numpy._core.multiarray", b"numpy.core.multiarray"
    if here not in pickled_part(path):
        here, there = there, here
    replace_in_archive(path, renamed, here, there)
    assert there in pickled_part(renamed)
    assert here not in pickled_part(renamed)
    assert read_checkpoint(renamed).size == "b0"


def pickled_part(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def replace_in_archive(source: Path, target: Path, old: bytes, new: bytes) -> None:
    """Copy a torch archive, renaming a module in its pickle; other records keep their bytes."""
    reader = torch._C.PyTorchFileReader(str(source))
    writer = torch._C.PyTorchFileWriter(str(target))
    for record in reader.get_all_records():
        content = reader.get_record(record)
        if record == "data.pkl":
            content = content.replace(old, new)
        if record not in ("version", ".data/serialization_id"):
            writer.write_record(record, content, len(content))
    writer.write_end_of_file()


def test_reading_a_checkpoint_imports_nothing_it_names(tmp_path, weights, monkeypatch):
    path = tmp_path / "iter_160000.pth"
    save_as_mmengine(path, weights, monkeypatch)
    code = (
        "import sys; from sfpp.export.checkpoints import read_checkpoint; read_checkpoint(sys.argv[1]); "
        "assert 'mmengine' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_safetensors_metadata_in_disorder_is_left_aside(tmp_path, weights):
    save_file(weights, tmp_path / "a.safetensors", metadata={"sfpp.classes": "[", "sfpp.palette": "{}"})
    checkpoint = read_checkpoint(tmp_path / "a.safetensors")
    assert (checkpoint.classes, checkpoint.palette, checkpoint.licence) == (None, None, "")
