import json

import numpy as np
import pytest

from sfpp.runtime import SfppError
from sfpp.runtime.people import BoxesFile

FRAME = np.zeros((48, 64, 3), np.uint8)


def written(tmp_path, document, name="boxes.json"):
    path = tmp_path / name
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


def found(path, **frame):
    detections = BoxesFile(path).find(FRAME, **frame)
    assert detections.boxes_xywh.dtype == detections.scores.dtype == np.float32
    assert detections.boxes_xywh.shape == (len(detections.scores), 4)
    return [(*box, pytest.approx(score)) for box, score in zip(detections.boxes_xywh, detections.scores, strict=True)]


def test_a_list_by_frame_number(tmp_path):
    path = written(
        tmp_path,
        [
            {"image_id": 3, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5},
            {"image_id": 4, "bbox": [5, 6, 7, 8]},
            {"frame": 3, "image_id": 99, "bbox": [0.5, 0, 9, 9], "score": 1},
        ],
    )
    assert found(path, index=3, name="clip-000003") == [(1, 2, 3, 4, 0.5), (0.5, 0, 9, 9, 1)]
    assert found(path, index=4) == [(5, 6, 7, 8, 1)]
    assert found(path, index=5) == found(path, index=99) == []
    assert BoxesFile(path).description == "boxes.json, which has boxes for 2 frames"


@pytest.mark.parametrize("file_name", ["a.jpg", "train/a.jpg", "train\\a.jpg", "a"])
def test_a_list_by_file_name(tmp_path, file_name):
    path = written(tmp_path, [{"file_name": file_name, "image_id": 7, "bbox": [1, 2, 3, 4]}])
    assert found(path, index=0, name="a") == [(1, 2, 3, 4, 1)]
    assert found(path, index=7, name="b") == []  # the name wins over the number


def test_repeated_stems_keep_their_suffix_as_frames_do(tmp_path):
    path = written(tmp_path, [{"image_id": "a.jpg", "bbox": [1, 1, 1, 1]}, {"image_id": "a.png", "bbox": [2, 2, 2, 2]}])
    assert found(path, name="a_png") == found(path, name="a.png") == [(2, 2, 2, 2, 1)]


def test_a_data_set(tmp_path):
    images = [{"id": 139, "file_name": "000139.jpg"}, {"id": 5, "file_name": "x/000005.jpg"}, {"id": 0}]
    annotations = [
        {"image_id": 5, "bbox": [1, 2, 3, 4], "category_id": 1},
        {"image_id": 139, "bbox": [5, 6, 7, 8], "category_id": 1},
        {"image_id": 0, "bbox": [9, 9, 9, 9], "category_id": 1},
    ]
    path = written(tmp_path, {"images": images, "annotations": annotations})
    assert found(path, index=1, name="000005") == [(1, 2, 3, 4, 1)]
    assert found(path, index=139, name="000139") == [(5, 6, 7, 8, 1)]
    assert found(path, index=0, name="other") == [(9, 9, 9, 9, 1)]
    assert found(path, index=5, name="other") == []


def test_other_categories_crowds_and_empty_boxes_are_left_out(tmp_path):
    entry = {"image_id": 0, "bbox": [1, 2, 3, 4]}
    others = [{"category_id": 2}, {"iscrowd": 1}, {"bbox": [1, 2, 0, 4]}, {"bbox": [1, 2, 3, -4]}]
    path = written(tmp_path, [{**entry, **other} for other in others])
    assert found(path, index=0) == []
    assert BoxesFile(path).description == "boxes.json, which has boxes for 0 frames"


@pytest.mark.parametrize("count", [0, 1, 2])
def test_json_lines(tmp_path, count):
    lines = [json.dumps({"image_id": index, "bbox": [index, 1, 2, 3], "score": 0.25}) for index in range(count)]
    path = written(tmp_path, "\n".join(lines) + "\n", name="boxes.jsonl")
    assert [found(path, index=index) for index in range(3)] == [
        [(index, 1, 2, 3, 0.25)] if index < count else [] for index in range(3)
    ]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "boxes.json is not valid JSON"),
        ('{"a": 1}\nx', "not valid JSON"),
        ('{"images": []}', "holds no boxes; expected COCO detections"),
        ("3", "holds no boxes"),
        ([1], "entry 0 is 1; expected COCO"),
        ([{"bbox": [1, 2, 3, 4]}], "entry 0 names no frame"),
        ([{"image_id": True, "bbox": [1, 2, 3, 4]}], "entry 0 names no frame"),
        ([{"image_id": 0, "bbox": [1, 2, 3, 4]}, {"image_id": 0}], "entry 1 has the bbox None, expected four finite"),
        ([{"image_id": 0, "bbox": [1, 2, 3]}], r"the bbox \[1, 2, 3\], expected four finite"),
        ('[{"image_id": 0, "bbox": [1, 2, NaN, 3]}]', r"the bbox \[1, 2, nan, 3\], expected four finite"),
        ([{"image_id": 0, "bbox": [1, 2, 3, "4"]}], "expected four finite"),
        ([{"image_id": 0, "bbox": [1, 2, 1e39, 4]}], "expected four finite"),
        ([{"image_id": 0, "bbox": [1, 2, 10**400, 4]}], "expected four finite"),
        ([{"image_id": 0, "bbox": [1, 2, 3, 4], "score": "high"}], "has the score 'high', expected a number"),
    ],
)
def test_a_file_that_cannot_be_meant_is_named(tmp_path, document, words):
    with pytest.raises(SfppError, match=words):
        BoxesFile(written(tmp_path, document))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(SfppError, match=r"cannot read the boxes .*No such file"):
        BoxesFile(tmp_path / "nothing.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SfppError, match="must be JSON in UTF-8"):
        BoxesFile(tmp_path / "binary.json")
