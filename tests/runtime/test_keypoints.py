import json

import pytest

from sfpp.runtime.errors import UsageError
from sfpp.runtime.keypoints import KEYPOINT_SETS, keypoint_set


def by_name(spec, pairs):
    return {frozenset((spec.names[a], spec.names[b])) for a, b in pairs}


@pytest.mark.parametrize(
    ("name", "count", "pairs", "some_names"),
    [
        ("coco17", 17, 8, {0: "nose", 5: "left_shoulder", 10: "right_wrist", 16: "right_ankle"}),
        ("lsp14", 14, 6, {0: "right_ankle", 3: "left_hip", 9: "left_shoulder", 12: "neck", 13: "head_top"}),
        ("jump20", 20, 9, {0: "head", 2: "right_shoulder", 9: "left_hand", 14: "right_toes", 18: "left_heel"}),
    ],
)
def test_named_sets(name, count, pairs, some_names):
    spec = keypoint_set(name, count)
    assert len(spec.names) == count
    assert {index: spec.names[index] for index in some_names} == some_names
    assert len(spec.flip_pairs) == pairs
    for left, right in spec.flip_pairs:
        assert spec.names[left].removeprefix("left_") == spec.names[right].removeprefix("right_")
    sided = [name for name in spec.names if name.startswith(("left_", "right_"))]
    assert len(sided) == 2 * pairs


def test_coco_order_is_left_before_right_from_head_to_foot():
    joints = ["eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"]
    expected = ("nose", *(f"{side}_{joint}" for joint in joints for side in ("left", "right")))
    assert keypoint_set("coco17").names == expected


def test_jump_order_is_limb_by_limb_from_the_body_outwards():
    arm, leg = ["shoulder", "elbow", "wrist", "hand"], ["hip", "knee", "ankle", "heel", "toes"]
    limbs = (f"{side}_{joint}" for limb in (arm, leg) for side in ("right", "left") for joint in limb)
    assert keypoint_set("jump20").names == ("head", "neck", *limbs)


@pytest.mark.parametrize("name", KEYPOINT_SETS)
def test_skeletons_are_symmetric_and_connected(name):
    spec = keypoint_set(name)
    mirror = spec.flip_indices
    assert by_name(spec, spec.skeleton) == by_name(spec, [(mirror[a], mirror[b]) for a, b in spec.skeleton])
    reached = {0}
    for _ in spec.names:
        reached |= {end for limb in spec.skeleton if reached & set(limb) for end in limb}
    assert reached == set(range(len(spec.names)))


def test_lsp_order_is_the_data_sets(shared):
    text = (shared / "README.md").read_text(encoding="utf-8")
    listed = text.split("LSP joints in order: ")[1].split(".")[0]
    assert keypoint_set("lsp14").names == tuple(joint.strip().replace(" ", "_") for joint in listed.split(","))


def write(path, fields):
    path.write_text(json.dumps(fields), encoding="utf-8")
    return path


def test_file_by_index_or_by_name(tmp_path):
    names = ["tail", "left_paw", "right_paw"]
    by_index = write(tmp_path / "a.json", {"names": names, "skeleton": [[0, 1], [0, 2]], "flip_pairs": [[1, 2]]})
    named = {"skeleton": [["tail", "left_paw"], ["tail", 2]], "flip_pairs": [["left_paw", "right_paw"]]}
    by_words = write(tmp_path / "b.json", {"names": names} | named)
    spec = keypoint_set(by_index, 3)
    assert spec == keypoint_set(str(by_words))
    assert (spec.names, spec.skeleton, spec.flip_pairs) == (tuple(names), ((0, 1), (0, 2)), ((1, 2),))


def test_file_with_names_alone(tmp_path):
    spec = keypoint_set(write(tmp_path / "a.json", {"names": ["Kopf", "膝"], "box_padding": 1.1}))
    assert (spec.names, spec.skeleton, spec.flip_pairs, spec.box_padding) == (("Kopf", "膝"), (), (), 1.1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("coco", "unknown keypoint set 'coco', did you mean 'coco17'.*expected one of coco17, jump20, lsp14"),
        ("LSP14", "did you mean 'lsp14'"),
        ("zebra", "unknown keypoint set 'zebra'; expected one of"),
        ("zebra.json", r"the keypoint file zebra\.json does not exist"),
        ("sets/zebra", "the keypoint file sets.zebra does not exist"),
    ],
)
def test_unknown_set(name, message):
    with pytest.raises(UsageError, match=message):
        keypoint_set(name)


def test_count_that_differs():
    with pytest.raises(UsageError, match=r"coco17 has 17 keypoints.* 14 heatmaps, which is what lsp14 has"):
        keypoint_set("coco17", 14)
    with pytest.raises(UsageError, match=r"lsp14 has 14 keypoints.* 15 heatmaps; give the set"):
        keypoint_set("lsp14", count=15)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["nose"], "must be a JSON object with names, skeleton"),
        ({}, "lacks names"),
        ({"name": ["a"]}, "unknown key 'name', did you mean 'names'"),
        ({"names": "nose"}, "names is 'nose', expected a list"),
        ({"names": [1], "skeleton": [[0, "a"]]}, "skeleton has 'a', which is not among the names"),
        ({"names": ["a", "b"], "skeleton": [["a", "bb"]]}, "skeleton has 'bb', .*did you mean 'b'"),
        ({"names": ["a", "b"], "skeleton": [0, 1]}, "skeleton is 0, expected a list"),
        ({"names": ["a", "b"], "skeleton": 3}, "skeleton is 3, expected a list"),
        ({"names": ["a", "b"], "flip_pairs": [[0, 2]]}, r"flip_pairs has \(0, 2\), expected two different"),
        ({"names": ["a", "a"]}, "the name 'a' is given twice"),
    ],
)
def test_file_that_does_not_describe_keypoints(tmp_path, fields, message):
    path = write(tmp_path / "set.json", fields)
    with pytest.raises(UsageError, match=message) as caught:
        keypoint_set(path)
    assert str(caught.value).count(f"the keypoint file {path}") == 1


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_file_that_is_not_json(tmp_path, content):
    path = tmp_path / "set.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"set\.json (is not valid JSON|cannot be read as UTF-8 text)"):
        keypoint_set(path)
