"""JSON and text from elsewhere: contracts, classes, keypoints, boxes, annotations, recipes, lists, rules."""

import json

from hypothesis import example

from sfpp.export.catalog import variant_by_name, words_from_recipe
from sfpp.export.classes import class_set
from sfpp.runtime.contract import contract_from_json, read_contract_file
from sfpp.runtime.keypoints import keypoint_set
from sfpp.runtime.people.boxes_file import BoxesFile
from sfpp.runtime.people.detector_output import class_names_from, detector_contract_from_json
from sfpp.runtime.self_test_data import unpacked
from sfpp.runtime.video.frame import Source
from sfpp.runtime.viewer.messages import message_from_page
from sfpp.runtime.viewer.update import Limits
from sfpp.tooling.frames import FrameSource
from sfpp.tooling.label_rules import LabelRules
from sfpp.tooling.truth import KeypointTruth
from tests.fuzz.inputs import changed_json, changed_texts, json_files, lines_of
from tests.fuzz.judging import fuzzed
from tests.fuzz.models import CONTRACT, MULTI_LABEL, POSE

CONTRACTS = [json.loads(each.to_json()) for each in (CONTRACT, POSE, MULTI_LABEL)]
KEYPOINTS = {"names": ["nose", "left eye", "right eye"], "skeleton": [[0, 1], ["nose", 2]], "flip_pairs": [[1, 2]]}
PERSON = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5, "iscrowd": 0}
DATA_SET = {
    "images": [{"id": 1, "file_name": "a/b.png"}, {"id": 2, "file_name": "c.png"}],
    "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}],
    "annotations": [{**PERSON, "num_keypoints": 1, "keypoints": [1, 2, 2, 3, 4, 0, 5, 6, 1]}],
}
BOXES = [DATA_SET, [PERSON, {"frame": 2, "bbox": [1, 2, 3, 4]}], [{"frame_name": "c", "bbox": [0, 0, 9.5, 9]}]]
LONG = "9" * 5000


@fuzzed(4.0, text=changed_json(*CONTRACTS))
@example('{"schema_version": 1, "x": ' + LONG + "}")
@example('{"schema_version": ' + LONG + "}")
def test_contract(text):
    contract = contract_from_json(text)
    assert contract_from_json(contract.to_json()) == contract


@fuzzed(1.0, data=json_files(*CONTRACTS))
@example(b'{"schema_version": 1, "x": ' + LONG.encode() + b"}")
def test_contract_beside_an_engine(folder, data):
    path = folder / "engine.json"
    path.write_bytes(data)
    read_contract_file(path)


@fuzzed(1.0, text=changed_json(*(json.loads(each.to_json())["self_test"] for each in (CONTRACT, POSE))))
def test_self_test(text):
    fields = json.loads(CONTRACT.to_json())
    try:
        fields["self_test"] = json.loads(text)
    except (ValueError, RecursionError):
        return
    contract = contract_from_json(json.dumps(fields))
    if contract.self_test is not None:
        unpacked(contract.self_test, contract)


@fuzzed(1.0, data=json_files(KEYPOINTS))
def test_keypoints(folder, data):
    path = folder / "keypoints.json"
    path.write_bytes(data)
    assert keypoint_set(path).names


@fuzzed(3.0, data=json_files(*BOXES))
@example(json.dumps([PERSON]).replace("1,", f"{LONG},").encode())
@example(b'[{"image_id": 1, "bbox": [1, 2, 3, 1%s]}]' % (b"0" * 400))
@example(b'{"image_id": 1, "bbox": [1, 2, 3, 4]}\n{"image_id": %s, "bbox": [1, 2, 3, 4]}' % (b"1" * 4300))
def test_boxes(folder, data):
    path = folder / "boxes.json"
    path.write_bytes(data)
    boxes = BoxesFile(path)
    assert boxes.description
    boxes.find(None, index=1, name="c")
    boxes.fit(Source(iter(()), kind="folder", name="f", frames_per_second=None, count=2, frame_names=("b", "c")))
    assert boxes.find(None, index=0, name="b").boxes_xywh.shape[1] == 4


@fuzzed(1.0, text=changed_json({"style": "yolov8", "person_class": 0, "mean": [0, 0, 0], "std": [1.0, 1.0, 255]}))
@example('{"style": []}')
@example('{"style": {}}')
def test_detector_contract(text):
    detector_contract_from_json(text, origin="detector.onnx")


_NAMES = ("{0: 'person', 1: 'dog'}", "['person', 'dog']", '{"0": "person"}', "person, dog\ncat", "((((0))))")


@fuzzed(2.0, text=changed_texts(*_NAMES))
@example("{" + LONG + ": 'person'}")
@example("{0x" + "f" * 5000 + ": 'person'}")
@example("{'٣': 'person', '²': 'dog'}")
def test_class_names_of_a_detector(text):
    names = class_names_from({"names": text})
    assert all(isinstance(key, int) and isinstance(name, str) for key, name in names.items())


PAGE = {"type": "view", "source": "a", "view": "overlay", "opacity": 40, "hidden": [1], "width": 640, "playing": True}


@fuzzed(2.0, text=changed_json(PAGE, {"type": "shown"}))
def test_message_of_a_page(text):
    message_from_page(text, Limits())


@fuzzed(1.0, data=json_files(["sky", {"name": "road", "color": [1, 2, 3]}]))
def test_classes(folder, data):
    path = folder / "classes.json"
    path.write_bytes(data)
    assert class_set(path).names


@fuzzed(1.0, data=lines_of("sky 1 2 3", "road", "# a comment", "1 2 3 car", "\u0663 \u0663 \u0663 bus", "1. car"))
@example(b"9" * 5001 + b") a\n")
def test_classes_as_text(folder, data):
    path = folder / "classes.txt"
    path.write_bytes(data)
    assert class_set(path).names


BSM, KMEANS = {"kv_mode": "bsm", "kv_r": 0.6, "kv_sx": 2, "kv_sy": 2}, {"kv_mode": "kmeans", "kv_r": 0.9}


@fuzzed(2.0, data=json_files([BSM, {**KMEANS, "kv_size": True}, {"q_mode": "n2d", "q_s": [2, 2]}, {"q_mode": "n1d"}]))
def test_recipe(folder, data):
    path = folder / "recipe.json"
    path.write_bytes(data)
    words_from_recipe(variant_by_name(path).recipe)


@fuzzed(3.0, data=json_files(*BOXES))
@example(json.dumps(DATA_SET).replace("5, 6, 1]", "5, 6, 1%s]" % ("0" * 400)).encode())
@example(json.dumps(DATA_SET).replace("[1, 2, 3, 4]", "[1, 2, 3, 1%s]" % ("0" * 400)).encode())
def test_keypoint_truth(folder, data):
    path = folder / "truth.json"
    path.write_bytes(data)
    truth = KeypointTruth(path, keypoints=3)
    assert all(truth.find(name).keypoints.shape[1:] == (3, 3) for name in truth.names)


@fuzzed(1.0, data=json_files({"255": 1, "0": "ignore", "#804080": 0}))
def test_label_map(folder, data):
    path = folder / "map.json"
    path.write_bytes(data)
    LabelRules(label_map=str(path))


@fuzzed(2.0, text=changed_texts("255=1,0=ignore", "#804080=0", "cityscapes", "1=-1"))
def test_label_map_as_text(folder, text):
    LabelRules(label_map=text)


@fuzzed(1.0, data=lines_of("a.png", "# a comment", "b/a.png", "..", "/", "c.jpg"))
@example(b"a\0b.png")
@example(b"\xef\xbb\xbfa.png")
@example(b"a" * 5000)
def test_list_of_images(folder, data):
    (folder / "a.png").touch()
    path = folder / "list.txt"
    path.write_bytes(data)
    FrameSource(str(path)).close()
