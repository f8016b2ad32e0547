"""Archives of arrays from elsewhere: annotated keypoints, and what calibration has kept."""

import io

import numpy as np
import pytest
from hypothesis import example

from sfpp.calibration.int8.histogram import BINS, Histogram, remembered
from sfpp.tooling.truth import KeypointTruth
from tests.fuzz.inputs import npy, npz_files, zipped
from tests.fuzz.judging import fuzzed

KEYPOINTS = {"names": np.array(["a", "b"]), "joints": np.zeros((2, 3, 3))}
RANGES = {"names": np.array(["x"]), "counts": np.zeros((1, BINS), np.int64), "facts": np.array([[1.0, -2, 3, 4]])}


def stored(**arrays):
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def changed(data, **bits):
    """Set bits of the first member's entry in an archive's directory, by their places in it."""
    start = data.find(b"PK\x01\x02")
    place = start + {"encrypted": 8, "method": 10}[next(iter(bits))]
    return data[:place] + bytes([data[place] | bits.popitem()[1]]) + data[place + 1 :]


@fuzzed(4.0, data=npz_files(**KEYPOINTS))
@example(b"")
@example(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }", bytes(24)))
@example(stored(names=np.array("a"), joints=np.zeros((1, 3, 3))))
@example(stored(names=np.array(["a"]), joints=np.full((1, 3, 3), "x")))
@example(stored(names=np.array([0x1000062], "<u4").view("<U1"), joints=np.zeros((1, 3, 3))))  # beyond all characters
@example(zipped({"names.npy": b"hello", "joints.npy": b""}))
@example(zipped({"names.npy": npy("{'descr': '<f8','shape':("), "joints.npy": b""}))
@example(zipped({"names.npy": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 3), }")}))
@example(changed(stored(**KEYPOINTS), encrypted=1))
@example(changed(stored(**KEYPOINTS), method=99))
@example(stored(names=np.array(["a"]), joints=np.random.default_rng(1).random((1, 3, 3))).replace(b"x", b"y"))
def test_keypoint_truth(folder, data):
    path = folder / "joints.npz"
    path.write_bytes(data)
    truth = KeypointTruth(path, keypoints=3)
    assert all(truth.find(name).keypoints.shape == (1, 3, 3) for name in truth.names)


@fuzzed(3.0, data=npz_files(**RANGES))
@example(b"")
@example(changed(stored(**RANGES), method=99))
@example(stored(**{**RANGES, "facts": np.full((1, 4), np.inf)}))
@example(stored(**{**RANGES, "facts": np.full((1, 4), np.nan)}))
@example(stored(**{**RANGES, "counts": np.full((1, BINS), -1)}))
@example(stored(**{**RANGES, "counts": np.zeros((1, 5), np.int64)}))
@example(stored(**{**RANGES, "counts": np.zeros((1, BINS), "U3")}))
def test_ranges_kept_by_calibration(folder, data):
    def observe():
        return {"x": Histogram()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SFPP_CACHE", str(folder))
        for old in folder.glob("ranges/*"):
            old.unlink()
        remembered({"a": 1}, observe)
        (path,) = (folder / "ranges").glob("*.npz")
        path.write_bytes(data)
        histograms, _ = remembered({"a": 1}, observe)
    for each in histograms.values():
        each.add(np.array([0.5, -1.0]))
        assert np.isfinite([each.lowest, each.highest, each.limit]).all()
        assert each.values >= 2
