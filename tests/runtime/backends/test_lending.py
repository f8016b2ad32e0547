"""Memory that is lent to frames on their way: no frame finds another's in it."""

import dataclasses
import gc
import threading

import numpy as np
import pytest

from sfpp.runtime import load
from sfpp.runtime.backends import TensorInfo
from sfpp.runtime.backends.lending import KeptArrays, Pool, held_by
from sfpp.runtime.backends.protocol import Lends
from sfpp.runtime.pixels.pictures import write_image
from sfpp.runtime.segmentation import Segmenter
from sfpp.runtime.video import Pipeline
from tests.runtime.backends.graphs import write_sampled
from tests.runtime.video.clips import CONTRACT, picture

FRAMES = 15


def pool_of(most=2):
    made = []

    def make():
        made.append(np.zeros((1, 4, 5, 3), np.uint8))
        return made[-1]

    return Pool(make, most=most), made


def lent(pool):
    loan = pool.lend()
    return loan.array(loan.piece)


def test_a_piece_comes_back_with_the_last_array_over_it():
    pool, made = pool_of()
    first = lent(pool)
    assert np.shares_memory(first, made[0])
    assert first.flags.writeable
    view = first[0, 1:3].reshape(-1, 3)[::2]
    del first
    assert np.shares_memory(lent(pool), made[1])  # of the first piece there is still a view
    del view
    again = lent(pool)
    assert np.shares_memory(again, made[0])
    assert len(made) == 2


def test_there_are_so_many_pieces_and_no_more():
    pool, _ = pool_of(most=2)
    kept = [lent(pool) for _ in range(2)]
    assert pool.lend() is None
    kept.pop()
    assert pool.lend() is not None


def test_a_closed_pool_frees_each_piece_once_nobody_has_it():
    freed = []
    pool = Pool(lambda: np.zeros(3), lambda piece: freed.append(id(piece)), most=3)
    kept, back = lent(pool), lent(pool)
    del back
    pool.close()
    assert len(freed) == 1
    assert pool.lend() is None
    kept[:] = 1  # it is still there
    del kept
    assert len(freed) == 2


def test_a_piece_that_cannot_be_made_does_not_count():
    fails = [True]

    def make():
        if fails.pop() if fails else False:
            raise MemoryError
        return np.zeros(3)

    pool = Pool(make, most=1)
    with pytest.raises(MemoryError):
        pool.lend()
    assert pool.lend() is not None


def test_other_arrays_are_not_held():
    assert held_by(np.zeros(3)) is None
    assert held_by(np.zeros(3)[1:]) is None


def test_threads_never_share_a_piece():
    pool, _ = pool_of(most=3)
    wrong = []

    def work(value):
        for _ in range(300):
            loan = pool.lend()
            if loan is None:
                continue
            array = loan.array(loan.piece)
            del loan
            array.fill(value)
            wrong.extend(array[array != value])

    threads = [threading.Thread(target=work, args=(value,)) for value in range(1, 6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not wrong


class LendingBackend:
    """Means of 4x4 pixels as logits; outputs lie in the memory that is lent with an input, as TensorRT's do."""

    description, precision, metadata = "lending", "fp32", {}

    def __init__(self, batch, *, lends=True):
        self.inputs = (TensorInfo("frame", (batch, 24, 32, 3), "uint8"),)
        self.lends, self.most_at_once = lends, 0
        self._out = threading.Lock()
        self.pool = Pool(
            lambda: (np.zeros((batch, 24, 32, 3), np.uint8), np.zeros((batch, 3, 6, 8), np.float32)), most=50
        )

    def lend(self, tensor):
        assert (tensor,) == self.inputs
        if not self.lends:
            return None
        loan = self.pool.lend()
        array = loan.array(loan.piece[0])
        array.fill(0xEE)  # whatever was in it
        return array

    def run(self, inputs):
        (frames,) = inputs.values()
        logits = frames.astype(np.float32).reshape(-1, 6, 4, 8, 4, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2)
        held = held_by(frames)
        assert (held is not None) == self.lends
        if held is None:
            return {"logits": logits}
        held.loan.piece[1][...] = logits
        return {"logits": held.loan.array(held.loan.piece[1])}

    def operator_times_ms(self):
        return {}

    def close(self):
        self.pool.close()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two sources of differing size, whose frames all differ."""
    made = []
    for number, size_hw in enumerate(((48, 64), (24, 32))):
        folder = tmp_path_factory.mktemp(f"source-{number}")
        for index in range(FRAMES):
            image = np.roll(picture(index * 4 + number * 30, size_hw=size_hw), index, axis=2)
            write_image(folder / f"{index:03}.png", image)
        made.append(folder)
    return made


def labels_of(folders, batch, *, lends, **options):
    contract = dataclasses.replace(CONTRACT, input=dataclasses.replace(CONTRACT.input, batch=batch))
    backend = LendingBackend(batch, lends=lends)
    assert isinstance(backend, Lends)
    with Segmenter(backend, contract) as model, Pipeline(model, folders, **options) as pipeline:
        answers = {(each.frame.source, each.frame.index): each.result.labels for each in pipeline}
    gc.collect()
    return answers


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "options", [{}, {"key_every": 3}, {"key_every": 4, "look_ahead": False}, {"smooth": 0.6}, {"still": True}], ids=str
)
def test_no_frame_of_a_pipeline_sees_anothers_data(folders, batch, options):
    expected = labels_of(folders, batch, lends=False, **options)
    given = labels_of(folders, batch, lends=True, **options)
    assert len(given) == len(expected) == 2 * FRAMES
    for key, labels in expected.items():
        np.testing.assert_array_equal(given[key], labels, err_msg=str(key))
    assert len({labels.tobytes() for labels in expected.values()}) > 2  # or nothing could be told apart


@pytest.mark.parametrize("library", ["onnxruntime", "openvino"])
def test_libraries_read_what_they_lend_where_it_lies(library, folders, tmp_path, monkeypatch):
    pytest.importorskip(library)
    path = write_sampled(tmp_path / "model.onnx", (24, 32))

    def answers():
        with load(path, contract=CONTRACT, backend=library, self_test=False) as model:
            assert (model.lent_input(1) is not None) == lends
            with Pipeline(model, folders) as pipeline:
                return {(each.frame.source, each.frame.index): each.result.labels for each in pipeline}

    lends = True
    given = answers()
    monkeypatch.setattr("sfpp.runtime.backends.lending.KeptArrays.lend", lambda *_: None)
    lends = False
    expected = answers()
    assert len(given) == len(expected) == 2 * FRAMES
    for key, labels in expected.items():
        np.testing.assert_array_equal(given[key], labels, err_msg=str(key))


def test_kept_arrays_are_as_asked_for():
    arrays = KeptArrays()
    first = arrays.lend(TensorInfo("frame", (1, 4, 5, 3), "uint8"))
    other = arrays.lend(TensorInfo("frame", (1, 4, 5, 3), "float32"))
    assert (first.shape, first.dtype, other.dtype) == ((1, 4, 5, 3), np.uint8, np.float32)
    address = first.ctypes.data
    del first
    assert arrays.lend(TensorInfo("frame", (1, 4, 5, 3), "uint8")).ctypes.data == address
    arrays.close()
    assert arrays.lend(TensorInfo("frame", (1, 4, 5, 3), "uint8")) is None
