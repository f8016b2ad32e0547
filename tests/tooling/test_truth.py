"""Annotations are read as they are meant, or refused with words."""

import json

import numpy as np
import pytest

from sfpp.runtime.errors import MediaError, UsageError
from sfpp.tooling.npz import arrays_from_npz
from sfpp.tooling.truth import KeypointTruth
from tests.fuzz.inputs import npy, zipped


def test_keypoints_of_crops(tmp_path):
    joints = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    np.savez(tmp_path / "joints.npz", names=np.array(["im1.jpg", "im2.jpg"]), joints=joints)
    truth = KeypointTruth(tmp_path / "joints.npz", keypoints=2)
    assert truth.names == {"im1", "im2"}
    np.testing.assert_array_equal(truth.find("im2").keypoints, joints[1:])
    assert truth.find("im2").boxes_xywh is None
    assert truth.find("im3") is None
    with pytest.raises(UsageError, match="im1 has 2 keypoints, but the model finds 17"):
        KeypointTruth(tmp_path / "joints.npz", keypoints=17)


def test_keypoints_of_a_coco_data_set(tmp_path):
    path = tmp_path / "people.json"
    person = {"image_id": 7, "bbox": [1, 2, 3, 4], "keypoints": [5, 6, 2, 0, 0, 0]}
    crowd = {**person, "iscrowd": 1}
    nobody = {**person, "num_keypoints": 0}
    document = {"images": [{"id": 7, "file_name": "dir/0007.jpg"}], "annotations": [person, crowd, nobody, person]}
    path.write_text(json.dumps(document))
    people = KeypointTruth(path, keypoints=2).find("0007")
    np.testing.assert_array_equal(people.keypoints, [[[5, 6, 2], [0, 0, 0]]] * 2)
    np.testing.assert_array_equal(people.boxes_xywh, [[1, 2, 3, 4]] * 2)


@pytest.mark.parametrize(
    "text", ["[]", "{}", "nonsense", '{"images": [], "annotations": [{"image_id": 1, "keypoints": [1, 2, 3]}]}']
)
def test_what_is_no_data_set_is_refused(tmp_path, text):
    path = tmp_path / "people.json"
    path.write_text(text)
    with pytest.raises(MediaError, match=r"(no keypoints|not valid JSON).*expected a COCO data set"):
        KeypointTruth(path, keypoints=2)


def test_an_archive_of_something_else_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", names=np.array(["x"]), joints=np.zeros((2, 3, 3)))
    with pytest.raises(MediaError, match=r"joints of shape \(2, 3, 3\) for names of shape \(1,\)"):
        KeypointTruth(tmp_path / "a.npz", keypoints=3)
    np.savez(tmp_path / "b.npz", names=np.array([{}]), joints=np.zeros((1, 3, 3)))
    with pytest.raises(MediaError, match=r"cannot be read as an \.npz"):  # pickled: data are never code
        KeypointTruth(tmp_path / "b.npz", keypoints=3)
    (tmp_path / "c.npz").write_bytes(b"PK nonsense")
    with pytest.raises(MediaError, match=r"cannot be read as an \.npz"):
        KeypointTruth(tmp_path / "c.npz", keypoints=3)
    with pytest.raises(MediaError, match="No such file"):
        KeypointTruth(tmp_path / "d.npz", keypoints=3)


@pytest.mark.parametrize("kind", ["<U0", "|S0", "|V0"])
def test_items_that_take_no_bytes_of_an_archive_take_no_memory(tmp_path, kind):
    path = tmp_path / "a.npz"
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({2**40},), }}"
    path.write_bytes(zipped({"a.npy": npy(header)}))
    with pytest.raises(MediaError, match="items have no bytes"):
        arrays_from_npz(path, "a", where="it", raising=MediaError)


@pytest.mark.parametrize("order", ["<", ">"])
def test_texts_of_an_archive_are_characters(tmp_path, order):
    texts = np.array([["a", "\U0010ffff"], ["", "道"]], f"{order}U2").T
    nothing = np.empty((2**40, 0), f"{order}U1")  # rows that would take all memory, one by one
    np.savez(tmp_path / "a.npz", texts=texts, nothing=nothing, one=texts[0, 0])
    arrays = arrays_from_npz(tmp_path / "a.npz", "texts", "nothing", "one", where="it", raising=MediaError)
    np.testing.assert_array_equal(arrays[0], texts)
    assert (arrays[1].shape, str(arrays[2])) == (nothing.shape, "a")
    np.savez(tmp_path / "b.npz", texts=np.array([0x110000], f"{order}u4").view(f"{order}U1"))
    with pytest.raises(MediaError, match="no character"):
        arrays_from_npz(tmp_path / "b.npz", "texts", where="it", raising=MediaError)
