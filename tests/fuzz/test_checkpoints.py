"""Checkpoints from elsewhere: pickles, archives, safetensors, and what libraries write beside them."""

import functools
import io
import json
import pickle
import struct

import torch
from hypothesis import example, strategies as st
from safetensors.torch import save

from sfpp.export.checkpoints.checkpoint import read_checkpoint, stored_labels
from sfpp.export.checkpoints.configuration import merging_in_training
from sfpp.export.checkpoints.storage import StoredWeights, read_weights
from sfpp.export.checkpoints.stored_preparation import read_preparation
from tests.export.test_preparation import NEW, OLD, PROCESSOR
from tests.fuzz.inputs import ODD_VALUES, changed_bytes, changed_json, changed_texts, json_files
from tests.fuzz.judging import fuzzed
from tests.fuzz.models import TINY, tiny_state

SMALL = {"state_dict": {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2)}, "meta": {"CLASSES": ("a", "b")}}


def saved(content, *, old=False):
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not old)
    return stream.getvalue()


def safetensors(shape):
    """Return a file of four bytes that claims a tensor of this shape."""
    text = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4)


@functools.cache
def stored_files():
    """A small file in each form."""
    plain = save(SMALL["state_dict"], metadata={"sfpp.classes": '["a", "b"]'})
    return saved(SMALL), saved(SMALL, old=True), plain, pickle.dumps({"a": [1, 2.5, "x"]})


@fuzzed(4.0, data=st.deferred(lambda: changed_bytes(*stored_files())), suffix=st.sampled_from((".pth", ".safetensors")))
@example(safetensors([2**62, 2**62]), ".safetensors")
@example(safetensors([10**400]), ".safetensors")
@example(struct.pack("<Q", 2**63) + b"{", ".safetensors")
@example(pickle.dumps(ODD_VALUES), ".pth")
@example(b"\x80\x02" + b"(" * 100_000 + b".", ".pth")
@example(b"\x80\x02]" + b"]a" * 1000 + b".", ".pth")
def test_weights(folder, data, suffix):
    path = folder / f"weights{suffix}"
    path.write_bytes(data)
    read_weights(path)


@fuzzed(1.0, data=changed_json({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}))
@example('{"weight_map": {"a": "\\u0000"}}')
@example('{"weight_map": {"a": "%s"}}' % ("a" * 5000))
def test_index_of_shards(folder, data):
    path = folder / "model.safetensors.index.json"
    path.write_bytes(data.encode("utf-8", "surrogatepass"))
    (folder / "1.safetensors").write_bytes(save({"a": torch.ones(1)}))
    (folder / "2.safetensors").write_bytes(save({"b": torch.ones(1)}))
    read_weights(path)


PREPARING = json_files(PROCESSOR), json_files({"image_processor": PROCESSOR})


@fuzzed(1.0, settings=json_files(TINY), processor=PREPARING[0], newer=PREPARING[1])
def test_folder_of_transformers(folder, settings, processor, newer):
    place = folder / "tiny"
    place.mkdir(exist_ok=True)
    if not (place / "model.safetensors").exists():
        (place / "model.safetensors").write_bytes(save(tiny_state()))
    (place / "config.json").write_bytes(settings)
    (place / "preprocessor_config.json").write_bytes(processor)
    (place / "processor_config.json").write_bytes(newer)
    read = read_checkpoint(place)
    assert len(read.class_set().names) == read.outputs


def test_the_tiny_network_is_read(folder):
    place = folder / "whole"
    place.mkdir()
    (place / "model.safetensors").write_bytes(save(tiny_state()))
    (place / "config.json").write_text(json.dumps(TINY))
    assert read_checkpoint(place).class_set().names == ("sky", "road", "car")


SHAPES = st.sampled_from(((), (0,), (1,), (4,), (4, 4), (3, 4, 1, 1), (0, 3, 7, 7), (4, 3, 7, 7), (2**20, 0)))
TENSORS = st.one_of(
    SHAPES.map(torch.zeros),
    SHAPES.map(lambda shape: torch.zeros(shape, dtype=torch.int64)),
    SHAPES.map(lambda shape: torch.full(shape, float("nan"))),
    SHAPES.map(lambda shape: torch.zeros(shape, dtype=torch.complex64)),
    st.just(torch.zeros(4, 4).to_sparse()),
    st.just(torch.zeros(4, device="meta")),
    st.sampled_from((None, 1, "a", b"a", [], {}, {"a": torch.zeros(1)}, [torch.zeros(1)], torch.float32)),
)
KEYS = st.sampled_from(sorted(tiny_state()))
OTHER_KEYS = st.sampled_from(("", "ema.a", "\ud800", 3, None))
NAMES = st.one_of(KEYS, KEYS.map(lambda key: key.replace("0", "9" * 5000)), OTHER_KEYS)


@fuzzed(2.0, changes=st.dictionaries(NAMES, TENSORS, max_size=3), removed=st.lists(KEYS, max_size=1))
def test_state_dictionary(folder, changes, removed):
    state = {**tiny_state(), **changes}
    for key in removed:
        del state[key]
    path = folder / "state" / "pytorch_model.bin"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(saved(state))
    (path.parent / "config.json").write_text(json.dumps(TINY))
    read_checkpoint(path)


@fuzzed(2.0, text=changed_texts(NEW, OLD), key=st.sampled_from(("cfg", "config")))
@example("a = " + "(" * 5000 + ")" * 5000, "cfg")
@example("a = " + "-" * 5000 + "1", "cfg")
@example("a = dict(mean=[1" + "0" * 400 + ", 1, 1])", "cfg")
@example("a = -0x" + "f" * 5000, "cfg")
@example("a = 0\nb = {a: 1, **a}", "cfg")
@example("a = {[]: 1}", "cfg")
def test_configuration_of_mmsegmentation(folder, text, key):
    _read_beside(folder, {key: text})


META = {"CLASSES": ["a", "b", "c"], "PALETTE": [[1, 2, 3]] * 3, "dataset_meta": {"classes": {"0": "a"}}}


@fuzzed(2.0, text=changed_json(META))
def test_metadata(folder, text):
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(metadata, dict):
        _read_beside(folder, metadata)


def _read_beside(folder, metadata):
    stored = StoredWeights(folder, folder, {}, metadata, "")
    read_preparation(stored, "mmseg", channels=3)
    merging_in_training(metadata)
    labels = stored_labels(metadata, None, 3)
    assert labels.names is None or len(labels.names) == 3
    assert all(note for note in labels.notes)
