"""Annotations are read as they are meant, or refused with words."""

import json
import struct
import zlib

import numpy as np
import pytest

from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.images import write_image
from sfpp.tooling.truth import KeypointTruth, LabelFolder


@pytest.fixture
def folder(tmp_path):
    write_image(tmp_path / "a.png", np.array([[0, 1, 2], [2, 11, 0]], np.uint8))
    write_image(tmp_path / "b.png", np.array([[0, 1, 255]], np.uint8))
    return tmp_path


def test_labels_are_the_values_of_the_picture(folder):
    truth = LabelFolder(folder, classes=3)
    assert truth.names == {"a", "b"}
    np.testing.assert_array_equal(truth.find("a", (2, 3)), [[0, 1, 2], [2, 11, 0]])
    assert truth.ignore == 11
    assert truth.find("c", (2, 3)) is None


def test_a_second_value_beyond_the_classes_is_refused(folder):
    truth = LabelFolder(folder, classes=3)
    truth.find("a", (2, 3))
    with pytest.raises(UsageError, match=r"b\.png has the values 255, but the model has 3 classes.*ignored is 11"):
        truth.find("b", (1, 3))
    with pytest.raises(UsageError, match=r"has the values 2, 11, .*--ignore"):
        LabelFolder(folder, classes=2).find("a", (2, 3))
    assert LabelFolder(folder, classes=3, ignore=255).find("b", (1, 3)).max() == 255
    with pytest.raises(UsageError, match="ignored is 255"):
        LabelFolder(folder, classes=3, ignore=255).find("a", (2, 3))


def test_label_pictures_have_the_size_of_their_frame(folder):
    with pytest.raises(MediaError, match=r"a\.png has 3x2 pixels \(width x height\), but its frame has 6x4"):
        LabelFolder(folder, classes=12).find("a", (4, 6))


def test_a_picture_in_colors_is_refused_and_a_grey_one_with_three_channels_is_not(folder):
    write_image(folder / "grey.png", np.repeat(np.array([[[1], [2]]], np.uint8), 3, axis=2))
    write_image(folder / "colors.png", np.array([[[128, 64, 128], [0, 0, 0]]], np.uint8))
    truth = LabelFolder(folder, classes=3)
    np.testing.assert_array_equal(truth.find("grey", (1, 2)), [[1, 2]])
    with pytest.raises(MediaError, match="convert colors to class numbers first"):
        truth.find("colors", (1, 2))
    (folder / "broken.png").write_bytes(b"no picture")
    with pytest.raises(MediaError, match="is not an image"):
        LabelFolder(folder, classes=3).find("broken", (1, 2))


def test_a_folder_without_label_pictures_is_refused(tmp_path):
    with pytest.raises(MediaError, match="holds no label images"):
        LabelFolder(tmp_path, classes=3)
    with pytest.raises(MediaError, match="is not a folder"):
        LabelFolder(tmp_path / "nowhere", classes=3)


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
    with pytest.raises(MediaError, match=r'holds no keypoints .*expected a COCO data set with "keypoints"'):
        KeypointTruth(path, keypoints=2)


def test_an_archive_of_something_else_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", names=np.array(["x"]), joints=np.zeros((2, 3, 3)))
    with pytest.raises(MediaError, match=r"joints of shape \(2, 3, 3\) for 1 names"):
        KeypointTruth(tmp_path / "a.npz", keypoints=3)
    np.savez(tmp_path / "b.npz", names=np.array([{}]), joints=np.zeros((1, 3, 3)))
    with pytest.raises(MediaError, match="holds no keypoints"):  # pickled: data are never code
        KeypointTruth(tmp_path / "b.npz", keypoints=3)
    (tmp_path / "c.npz").write_bytes(b"PK nonsense")
    with pytest.raises(MediaError, match="holds no keypoints"):
        KeypointTruth(tmp_path / "c.npz", keypoints=3)
    with pytest.raises(MediaError, match="cannot read the keypoints"):
        KeypointTruth(tmp_path / "d.npz", keypoints=3)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def palette_png(indices, *, bits=8):
    """A PNG as image editors write label images: indices, and a color for each that says nothing of its number."""
    height, width = indices.shape
    planes = np.unpackbits(indices[..., np.newaxis], axis=2)[..., 8 - bits :].reshape(height, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in planes)
    colors = np.random.default_rng(0).integers(0, 256, (2**bits, 3), np.uint8)
    header = struct.pack(">IIBBBBB", width, height, bits, 3, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"PLTE", colors.tobytes()), (b"tRNS", b"\0"), (b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in [*chunks, (b"IEND", b"")])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_label_pictures_with_a_palette_give_their_indices(tmp_path, bits):
    indices = np.random.default_rng(1).integers(0, min(2**bits, 19), (5, 7), np.uint8)
    (tmp_path / "frame.png").write_bytes(palette_png(indices, bits=bits))
    found = LabelFolder(tmp_path, classes=19).find("frame", (5, 7))
    np.testing.assert_array_equal(found, indices)


def test_a_damaged_one_is_an_error_and_not_labels(tmp_path):
    whole = palette_png(np.zeros((50, 50), np.uint8))
    for length in (30, 40, 60, len(whole) - 20):
        (tmp_path / "frame.png").write_bytes(whole[:length])
        with pytest.raises(MediaError, match="is not an image that Pillow can decode"):
            LabelFolder(tmp_path, classes=3).find("frame", (50, 50))
