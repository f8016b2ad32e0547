"""What a frame costs: copies, transfers and waiting, counted by the fake CUDA; and inputs that lie on the card."""

import collections
import ctypes
import dataclasses
import importlib
import json
from types import SimpleNamespace

import numpy as np
import pytest

from sfpp.runtime import load
from sfpp.runtime.backends import BackendOptions, TensorInfo, open_backend
from sfpp.runtime.errors import BackendError, UsageError
from sfpp.runtime.labels import labels_from_logits
from sfpp.runtime.pixels.pictures import write_image
from sfpp.runtime.video import Pipeline
from tests.runtime.backends.graphs import write_sampled, write_sums
from tests.runtime.video.clips import CONTRACT, picture

X = np.arange(6, dtype=np.float32).reshape(2, 3)
FULL_HD = (1080, 1920)
COUNTED = {
    "cudaMemcpyAsync",
    "cudaStreamSynchronize",
    "cudaGraphLaunch",
    "enqueue",
    "cudaMalloc",
    "cudaHostAlloc",
    "cudaStreamBeginCapture",
}


def engine_of(model):
    """Return an engine of an ONNX file as another tool would have built it, without a contract."""
    engine = model.with_suffix(".engine")
    facts = json.dumps({"flags": []}).encode()
    engine.write_bytes(b"fake engine\n" + facts + b"\n" + model.read_bytes())
    return engine


@pytest.fixture(params=["integrated", "discrete"])
def card(request, fakes, monkeypatch):
    monkeypatch.setenv("FAKE_INTEGRATED", "1" if request.param == "integrated" else "0")
    return request.param


@pytest.fixture
def engine(fakes, tmp_path):
    return engine_of(write_sums(tmp_path / "model.onnx"))


@pytest.fixture
def copies(monkeypatch):
    """The sizes of arrays that are copied in the processor's memory by the backend."""
    counted, copyto = [], np.copyto

    def counting(target, source, **options):
        counted.append(target.nbytes)
        copyto(target, source, **options)

    monkeypatch.setattr(np, "copyto", counting)
    return counted


def opened(path, **options):
    return open_backend(path, options=BackendOptions(**options))[0]


def in_pinned(fakes, array):
    begin = array.__array_interface__["data"][0]
    return any(start <= begin < start + len(memory) for start, memory in fakes.PINNED.items())


def counts_since(fakes, begin):
    counts = collections.Counter(call[0] for call in fakes.CALLS[begin:] if call[0] in COUNTED)
    kinds = collections.Counter(call[4].name[-12:] for call in fakes.CALLS[begin:] if call[0] == "cudaMemcpyAsync")
    return dict(counts), dict(kinds)


def test_what_a_full_hd_frame_costs(card, fakes, tmp_path, copies):
    contract = dataclasses.replace(CONTRACT, input=dataclasses.replace(CONTRACT.input, height=1080, width=1920))
    engine = engine_of(write_sampled(tmp_path / "model.onnx", FULL_HD))
    generator = np.random.default_rng(0)
    with load(engine, contract=contract, self_test=False) as model:
        for _ in range(3):
            frame = generator.integers(0, 255, (*FULL_HD, 3), np.uint8)
            begin = len(fakes.CALLS)
            prepared = model.prepare(frame)
            outputs = model.infer(prepared)
            calls, transfers = counts_since(fakes, begin)
            # No array but the engine's own: pre-processing has written into it, and the labels are made from it.
            assert in_pinned(fakes, prepared.tensor)
            assert in_pinned(fakes, outputs["logits"])
            assert copies == []
            assert calls.pop("cudaStreamSynchronize") == 1
            assert calls.pop("cudaGraphLaunch") == 1
            expected = {} if card == "integrated" else {"HostToDevice": 1, "DeviceToHost": 1}
            assert transfers == {}, "they are in the graph"
            assert calls == {}
            assert transfers_in(fakes) == expected
            winners = frame[::4, ::4, ::-1].argmax(axis=2)
            assert model.finish(outputs, prepared).labels.shape == FULL_HD
            np.testing.assert_array_equal(outputs["logits"][0].argmax(axis=0), winners)
            del prepared, outputs
        assert len(fakes.GRAPHS) == 1
        assert bool(fakes.DEVICE) == (card == "discrete")
    assert [fakes.DEVICE, fakes.PINNED, fakes.MAPPED, fakes.STREAMS, fakes.GRAPHS] == [{}] * 5


@pytest.mark.parametrize("batch_of_sources", [1, 2])
def test_no_frame_of_a_pipeline_sees_anothers_data(card, fakes, tmp_path, batch_of_sources):
    engine = engine_of(write_sampled(tmp_path / "model.onnx", (24, 32)))
    folders = [tmp_path / f"source-{number}" for number in range(batch_of_sources)]
    for number, folder in enumerate(folders):
        folder.mkdir()
        for index in range(12):
            image = np.roll(picture(5 * index + number, size_hw=(24, 32)), index, axis=2)
            write_image(folder / f"{index:03}.png", image)
    with load(engine, contract=CONTRACT, self_test=False) as model:
        for _ in range(2):
            with Pipeline(model, folders) as pipeline:
                answers = list(pipeline)
            assert len(answers) == 12 * batch_of_sources
            for each in answers:
                pixels = each.frame.image_bgr[::4, ::4, ::-1].transpose(2, 0, 1).astype(np.float32)
                np.testing.assert_array_equal(each.result.labels, labels_from_logits(pixels, (24, 32)))
        del answers, each
    assert [fakes.DEVICE, fakes.PINNED, fakes.MAPPED, fakes.GRAPHS] == [{}] * 4


def transfers_in(fakes):
    """Return the copies that were recorded for the graph that is launched."""
    calls = [call for call in fakes.CALLS if call[0] in ("cudaMemcpyAsync", "cudaStreamBeginCapture")]
    begin = max(index for index, call in enumerate(calls) if call[0] == "cudaStreamBeginCapture")
    return dict(collections.Counter(call[4].name[-12:] for call in calls[begin + 1 :]))


def test_copying_can_be_had_for_comparison(fakes, engine, monkeypatch):
    monkeypatch.setenv("FAKE_INTEGRATED", "1")
    backend = opened(engine, zero_copy=False)
    np.testing.assert_array_equal(backend.run({"x": X})["y"], 2 * X)
    assert fakes.MAPPED == {}
    assert len(fakes.DEVICE) == 3


def test_an_array_of_ones_own_is_copied_once(card, engine, copies):
    backend = opened(engine)
    for step in range(3):
        copies.clear()
        outputs = backend.run({"x": X + step})
        np.testing.assert_array_equal(outputs["y"], 2 * (X + step))
        assert copies == [X.nbytes]


def test_what_is_kept_is_left_alone(card, engine, fakes):
    """Results belong to the caller, however many are kept; and only so much memory is locked for them."""
    backend = opened(engine)
    kept = [backend.run({"x": X + step}) for step in range(20)]
    for step, outputs in enumerate(kept):
        np.testing.assert_array_equal(outputs["y"], 2 * (X + step))
        np.testing.assert_array_equal(outputs["z"], -(X + step))
    assert len(fakes.PINNED) == 3 * 7
    backend.close()
    np.testing.assert_array_equal(kept[0]["y"], 2 * X)  # not freed under whoever has it
    del kept, outputs
    assert fakes.PINNED == {}


def test_an_input_may_be_run_again_while_its_results_are_kept(card, engine):
    backend = opened(engine)
    lent = backend.lend(TensorInfo("x", (2, 3), "float32"))
    lent[:] = X
    first = backend.run({"x": lent})
    lent += 1
    second = backend.run({"x": lent})
    np.testing.assert_array_equal(first["y"], 2 * X)
    np.testing.assert_array_equal(second["y"], 2 * (X + 1))


def test_a_part_of_what_was_lent_is_an_array_like_any_other(card, engine, copies):
    backend = opened(engine)
    lent = backend.lend(TensorInfo("x", (2, 3), "float32"))
    lent[:] = X
    repeated = np.broadcast_to(lent[:1], (2, 3))  # it begins where the whole does
    for given in (lent[::-1], repeated):
        copies.clear()
        np.testing.assert_array_equal(backend.run({"x": given})["y"], 2 * given)
        assert len(copies) == 1


def test_nothing_is_lent_for_another_input(card, engine):
    backend = opened(engine)
    assert backend.lend(TensorInfo("x", (2, 4), "float32")) is None
    assert backend.lend(TensorInfo("y", (2, 3), "float32")) is None
    backend.close()
    assert backend.lend(TensorInfo("x", (2, 3), "float32")) is None


def test_nothing_is_lent_while_the_engine_is_closed(card, engine, monkeypatch):
    """A frame may be prepared in another thread just then, and what its memory would be made with is gone."""
    backend, lent = opened(engine), []
    release = backend._cuda.release

    def releasing(**handles):
        lent.append(backend.lend(TensorInfo("x", (2, 3), "float32")))
        return release(**handles)

    monkeypatch.setattr(backend._cuda, "release", releasing)
    backend.close()
    assert lent
    assert all(each is None for each in lent)


@pytest.mark.parametrize(("schedule", "flag"), [("spin", 1), ("blocking", 4)])
def test_how_the_card_is_waited_for(engine, fakes, schedule, flag):
    opened(engine, schedule=schedule).close()
    names = [call[0] for call in fakes.CALLS]
    assert ("cudaSetDeviceFlags", flag) in fakes.CALLS
    assert names.index("cudaSetDeviceFlags") < names.index("cudaGetDeviceProperties")


def test_a_schedule_that_comes_too_late_is_warned_of(engine, fakes, monkeypatch):
    monkeypatch.setitem(fakes.FAILING, "cudaSetDeviceFlags", 1)
    lines = []
    backend = open_backend(engine, options=BackendOptions(schedule="spin"), notify=lines.append)[0]
    assert "the card is waited for as before, not by spin" in lines[0]
    np.testing.assert_array_equal(backend.run({"x": X})["y"], 2 * X)
    with pytest.raises(UsageError, match="expected one of spin, blocking"):
        BackendOptions(schedule="nap")


class OnCard:
    """An array on the fake card, as CuPy has it."""

    def __init__(self, fakes, values, *, offset=0, **facts):
        memory = fakes.DEVICE[fakes.cudaMalloc(values.nbytes + offset)[1]]
        memory[offset : offset + values.nbytes] = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
        self.address = memory.ctypes.data + offset
        self.__cuda_array_interface__ = {
            "shape": values.shape,
            "typestr": values.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "stream": None,
            "version": 3,
            **facts,
        }


def test_an_input_on_the_card_is_read_where_it_lies(card, engine, fakes, copies):
    backend = opened(engine)
    begin = len(fakes.CALLS)
    for step in range(3):
        outputs = backend.run({"x": OnCard(fakes, X + step)})
        np.testing.assert_array_equal(outputs["y"], 2 * (X + step))
    assert copies == []
    _, transfers = counts_since(fakes, begin)
    assert transfers == ({} if card == "integrated" else {"DeviceToHost": 6})
    np.testing.assert_array_equal(backend.run({"x": X})["y"], 2 * X)  # the graph knows its own memory


def test_the_stream_of_an_input_is_waited_for(engine, fakes):
    backend = opened(engine)
    theirs = fakes.cudaStreamCreateWithFlags(1)[1]
    backend.run({"x": OnCard(fakes, X, stream=theirs)})
    assert ("cudaStreamSynchronize", theirs) in fakes.CALLS


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"data": (256 * 7, False)}, "does not lie on the first card"),
        ({"strides": (4, 8)}, "is a view with gaps"),
        ({"shape": (3, 2)}, r"given the inputs 'x' \(float32, 3x2\), expected 'x' \(float32, 2x3\)"),
        ({"typestr": "<f8"}, r"'x' \(float64, 2x3\), expected"),
    ],
)
def test_what_the_engine_cannot_read_on_the_card(engine, fakes, facts, message):
    backend = opened(engine)
    with pytest.raises(BackendError, match=message):
        backend.run({"x": OnCard(fakes, X, **facts)})


def test_another_card_another_place_and_no_array(engine, fakes, monkeypatch):
    backend = opened(engine)
    with pytest.raises(BackendError, match="is a list; expected a NumPy array, or one on the card"):
        backend.run({"x": [1.0]})
    given = OnCard(fakes, X, offset=4)
    monkeypatch.setattr(fakes, "on_card", lambda address: fakes.DEVICE)
    with pytest.raises(BackendError, match="begins at no multiple of 256 bytes"):
        backend.run({"x": given})
    monkeypatch.setenv("FAKE_DEVICE", "1")
    with pytest.raises(BackendError, match="does not lie on the first card"):
        backend.run({"x": OnCard(fakes, X)})


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class ByDlpack:
    """An array on the fake card, as PyTorch has it."""

    def __init__(self, given, *, code=2, bits=32, strides=None, device=(2, 0), offset=0):
        shape = given.__cuda_array_interface__["shape"]
        self._kept = given, (ctypes.c_int64 * 2)(*shape), strides and (ctypes.c_int64 * 2)(*strides)
        self._device = device
        self._tensor = _DLTensor(given.address - offset, device, 2, code, bits, 1, self._kept[1], self._kept[2], offset)
        self.streams = []

    def __dlpack_device__(self):
        return self._device

    def __dlpack__(self, *, stream=None):
        self.streams.append(stream)
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return new(ctypes.addressof(self._tensor), b"dltensor", None)


def test_dlpack_gives_the_address_and_the_stream(engine, fakes):
    backend = opened(engine)
    given = ByDlpack(OnCard(fakes, X), strides=(3, 1))
    np.testing.assert_array_equal(backend.run({"x": given})["y"], 2 * X)
    assert given.streams == [backend._stream]  # its maker lets that one wait
    part = ByDlpack(OnCard(fakes, X + 1), offset=256)
    np.testing.assert_array_equal(backend.run({"x": part})["y"], 2 * (X + 1))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"device": (2, 1)}, r"lies on the device \(2, 1\) of DLPack, and the engine runs on \(2, 0\)"),
        ({"device": (1, 0)}, r"lies on the device \(1, 0\)"),
        ({"code": 4, "bits": 16}, "a type of DLPack's code 4, which NumPy lacks"),
        ({"strides": (1, 2)}, "is a view with gaps"),
        ({"code": 1, "bits": 8}, r"'x' \(uint8, 2x3\), expected"),
    ],
)
def test_what_dlpack_says_is_checked(engine, fakes, facts, message):
    backend = opened(engine)
    with pytest.raises(BackendError, match=message):
        backend.run({"x": ByDlpack(OnCard(fakes, X), **facts)})


def test_dlpack_is_read_as_numpy_writes_it():
    """The layout of DLPack's structure, against NumPy's own, which lies in the processor's memory."""
    device_arrays = importlib.import_module("sfpp.runtime.tensorrt.device_arrays")
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    pretending = SimpleNamespace(__dlpack__=lambda stream: values.__dlpack__(), __dlpack_device__=lambda: (2, 0))
    found = device_arrays._from_dlpack(pretending, "x", 1)
    assert (found.shape, found.dtype, found.address) == (values.shape, values.dtype, values.ctypes.data)
