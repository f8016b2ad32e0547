import json

import numpy as np
import pytest

from sfpp.runtime import SfppError, UsageError
from sfpp.runtime.people import BoxesFile
from sfpp.runtime.video.frame import Source

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
    with pytest.raises(SfppError, match=r"the file of boxes .* cannot be read: No such file"):
        BoxesFile(tmp_path / "nothing.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SfppError, match="cannot be read as UTF-8 text"):
        BoxesFile(tmp_path / "binary.json")


def pictures(*names):
    return Source(iter(()), kind="folder", name="folder", frames_per_second=None, frame_names=names, count=len(names))


def video(count=None, name="clip"):
    return Source(iter(()), kind="video", name=name, frames_per_second=None, count=count)


def boxes_of(*ids, field="image_id"):
    """Boxes whose left edge is the id."""
    return [{field: each, "category_id": 1, "bbox": [int(each), 1, 2, 3]} for each in ids]


def lefts(path, source):
    boxes = BoxesFile(path)
    boxes.fit(source)
    found = [boxes.find(FRAME, index=index, name=name) for index, name in enumerate(source.frame_names)]
    return [each.boxes_xywh[:, 0].tolist() for each in found], boxes.description


COCO_NAMES = ("000000000139", "000000000632", "000000000785")


@pytest.mark.parametrize(
    ("ids", "names", "expected"),
    [
        ((632, 139, 999), COCO_NAMES, [[139], [632], []]),
        ((139,), ("COCO_val2014_000000000785", "COCO_val2014_000000000139"), [[], [139]]),
        ((0, 2), COCO_NAMES, [[0], [], [2]]),
        ((1, 2, 3), ("frame1", "frame2", "frame3"), [[1], [2], [3]]),
        ((0, 1, 2), ("frame1", "frame2", "frame3"), [[0], [1], [2]]),
        ((1, 2), ("frame0", "frame1", "frame2"), [[], [1], [2]]),
        ((0, 1), ("a", "b"), [[0], [1]]),
    ],
)
def test_ids_without_images_are_told_by_the_pictures(tmp_path, ids, names, expected):
    found, description = lefts(written(tmp_path, boxes_of(*ids)), pictures(*names))
    assert found == expected
    assert description == f"boxes.json, which has boxes for {sum(map(bool, expected))} of {len(names)} pictures"


@pytest.mark.parametrize(
    ("document", "source", "words"),
    [
        (boxes_of(1, 2), pictures(*COCO_NAMES[:2]), "image_id 2 of .* is none of the 2 pictures, which count from 0"),
        (
            boxes_of(1, 2),
            pictures("frame1", "frame2", "frame3"),
            "may be the picture frame2, counted from 0, or the one w",
        ),
        (boxes_of(139), pictures("a", "b"), "image_id 139 of .* is none of the 2 pictures"),
        (boxes_of(1), pictures("a1", "b1"), None),  # two have the number, so that it is the second picture
        (boxes_of(7), pictures("a7", "b7"), 'write "file_name" or "frame" into each entry'),
        (boxes_of("3", field="file_name"), pictures("a", "b"), "has boxes for 3 and the like, and none for a and the"),
        (boxes_of(1, 2, 3), video(3), "image_id 1 to 3, and of 3 frames the last one is number 2, counted from 0"),
        (boxes_of(1, 2), video(3), None),
        (boxes_of(1, 2, 3), video(), None),
        (
            boxes_of("1", field="file_name"),
            video(3),
            "boxes for 1 and the like, and the frames of clip are called clip-0",
        ),
        ([{"file_name": "clip-000001.jpg", "bbox": [1, 1, 1, 1]}], video(3), None),
        ([], pictures("a"), None),
    ],
)
def test_boxes_of_another_source_are_told(tmp_path, document, source, words):
    boxes = BoxesFile(written(tmp_path, document))
    if words is None:
        boxes.fit(source)
        return
    with pytest.raises(UsageError, match=words):
        boxes.fit(source)


@pytest.mark.parametrize("field", ["image_id", "frame"])
def test_boxes_stay_with_their_pictures_where_one_cannot_be_read(tmp_path, field):
    boxes = BoxesFile(written(tmp_path, boxes_of(0, 1, 2, field=field)))
    boxes.fit(pictures("a", "broken", "b"))
    assert boxes.find(FRAME, index=1, name="b").boxes_xywh[:, 0].tolist() == [2]


def test_a_picture_of_a_data_set_may_hold_nobody(tmp_path):
    images = [{"id": 5, "file_name": "x/a.jpg"}, {"id": 6, "file_name": "b.jpg"}]
    document = {"images": images, "annotations": boxes_of(6)}
    found, description = lefts(written(tmp_path, document), pictures("a"))
    assert (found, description) == ([[]], "boxes.json, which has boxes for 0 of 1 picture")
    assert BoxesFile(written(tmp_path, document)).image_ids["a"] == 5


def test_results_of_a_run_are_boxes_again(tmp_path):
    lines = [{"image_id": 139, "frame_name": "b", "bbox": [1, 2, 3, 4], "score": 0.5}]
    assert found(written(tmp_path, lines), name="b") == [(1, 2, 3, 4, 0.5)]


def test_boxes_are_those_of_one_source(tmp_path):
    boxes = BoxesFile(written(tmp_path, boxes_of(0, 1)))
    boxes.fit(pictures("a", "b"))
    boxes.fit(pictures("a", "b"))
    with pytest.raises(UsageError, match="tells the frames of one source, folder; give clip its own"):
        boxes.fit(video(2))


def test_a_person_is_told_by_the_categories(tmp_path):
    annotations = [{"frame": 0, "bbox": [number, 1, 2, 3], "category_id": number} for number in (0, 1, 2)]
    for names, given, expected in [
        (("car", "Person", "dog"), None, 1),
        (("person", "car"), None, 0),
        (("car", "dog"), "dog", 1),
        (("car", "dog"), 0, 0),
        ((), 2, 2),
        ((), None, 1),
    ]:
        categories = [{"id": number, "name": name} for number, name in enumerate(names)]
        path = written(tmp_path, {"images": [], "annotations": annotations, "categories": categories})
        ((left, *_),) = BoxesFile(path, person_class=given).find(FRAME).boxes_xywh
        assert left == expected
    categories = [{"id": 1, "name": "car"}]
    path = written(tmp_path, {"images": [], "annotations": annotations, "categories": categories})
    with pytest.raises(UsageError, match="has the classes 1 'car', none of them a person by name"):
        BoxesFile(path)
    with pytest.raises(UsageError, match="has no box of category 1, which is a person's, but of 0; say which"):
        BoxesFile(written(tmp_path, annotations[:1]))
