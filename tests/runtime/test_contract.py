import dataclasses
import json

import pytest

from sfpp.runtime.contract import (
    SCHEMA_VERSION,
    InputSpec,
    KeypointSpec,
    ModelContract,
    OutputSpec,
    SelfTest,
    contract_from_json,
)
from sfpp.runtime.errors import ContractError, ModelFileError, SfppError

CONTRACT = ModelContract(
    task="segmentation",
    family="segformer",
    size="b0",
    variant="fast",
    input=InputSpec(name="frame", height=1080, width=1920, batch=2, mean=(1.5, 2.0, 3.0), resize="stretch"),
    outputs=(OutputSpec(name="logits", kind="logits", stride=4), OutputSpec(name="labels", kind="labels", stride=1)),
    classes=("Straße", "道路"),
    palette=((128, 64, 128), (0, 255, 0)),
    recipe=({"kv_mode": "bsm", "kv_r": 0.9, "kv_sx": 4}, {}, {"q_mode": "n2d"}, {}),
    checkpoint_sha256="ab" * 32,
    licence="research only",
    sfpp_version="0.1.0",
)


POSE = ModelContract(
    task="pose",
    family="segformer",
    size="b0",
    variant="fast",
    input=InputSpec(name="frame", height=384, width=288, batch=4),
    outputs=(OutputSpec(name="heatmaps", kind="heatmaps", stride=4),),
    keypoints=KeypointSpec(
        names=("nose", "left_eye", "right_eye"), skeleton=((0, 1), (2, 0)), flip_pairs=((1, 2),), box_padding=1.5
    ),
)


def changed(contract=CONTRACT, **fields):
    return json.dumps(json.loads(contract.to_json()) | fields)


@pytest.mark.parametrize("contract", [CONTRACT, POSE], ids=["segmentation", "pose"])
def test_round_trip_through_json_keeps_everything(contract):
    text = contract.to_json()
    assert "\n" not in text
    again = contract_from_json(text)
    assert again == contract
    assert again.to_json() == text


def test_facts_of_preparation_are_kept():
    spec = InputSpec(
        name="image", height=64, width=96, layout="NCHW", dtype="float32", normalized_in_graph=False, channels=4,
        mean=(1, 2, 3, 4), std=(5, 6, 7, 8), interpolation="antialias",
    )  # fmt: skip
    outputs = (OutputSpec(name="logits", kind="logits", stride=4, align_corners=True),)
    contract = dataclasses.replace(CONTRACT, input=spec, outputs=outputs)
    assert contract_from_json(contract.to_json()) == contract
    assert contract.input.shape == (1, 4, 64, 96)


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
def test_nv12_is_kept_and_one_and_a_half_times_as_high(matrix):
    spec = dataclasses.replace(CONTRACT.input, layout="NV12", matrix=matrix)
    contract = dataclasses.replace(CONTRACT, input=spec)
    assert contract_from_json(contract.to_json()) == contract
    assert spec.shape == (2, 1620, 1920)
    fields = json.loads(contract.to_json())
    assert fields["input"].pop("matrix") == matrix
    with pytest.raises(ContractError, match="NV12 needs"):
        contract_from_json(json.dumps(fields))


def test_a_self_test_is_kept_as_well_and_may_be_missing():
    contract = dataclasses.replace(CONTRACT, self_test=SelfTest("frame", "answer", "ab" * 32, 0.98))
    assert contract_from_json(contract.to_json()) == contract
    assert contract_from_json(changed(self_test=None)) == CONTRACT
    with pytest.raises(ContractError, match="self_test lacks the field 'answer'"):
        contract_from_json(changed(self_test={"frame": ""}))
    with pytest.raises(ContractError, match=r"threshold is 2\.0, expected 0 to 1"):
        contract_from_json(changed(self_test={**dataclasses.asdict(contract.self_test), "threshold": 2}))


def test_json_says_the_schema_version():
    assert json.loads(CONTRACT.to_json())["schema_version"] == SCHEMA_VERSION


def test_missing_optional_fields_take_their_defaults():
    fields = json.loads(CONTRACT.to_json())
    for name in ("recipe", "precision", "licence"):
        del fields[name]
    for name in ("batch", "channels", "interpolation"):
        del fields["input"][name]
    del fields["outputs"][0]["align_corners"]
    again = contract_from_json(json.dumps(fields))
    assert (again.precision, again.licence, again.input.batch) == ("fp32", "", 1)
    assert (again.input.channels, again.input.interpolation, again.outputs[0].align_corners) == (3, "area", False)
    assert again.recipe == ({}, {}, {}, {})


def test_unknown_fields_of_a_known_schema_are_ignored():
    assert contract_from_json(changed(color_of_the_box="grey")) == CONTRACT


def test_newer_schema_is_refused_with_words():
    with pytest.raises(ContractError, match=f"schema version {SCHEMA_VERSION + 1}.*upgrade sfpp"):
        contract_from_json(changed(schema_version=SCHEMA_VERSION + 1))


@pytest.mark.parametrize("version", [None, 0, -1, True, 1.0, "1"])
def test_schema_version_must_be_a_positive_integer(version):
    with pytest.raises(ContractError, match="no valid schema_version"):
        contract_from_json(changed(schema_version=version))


@pytest.mark.parametrize("text", ["", "{", "nonsense", "[" * 100_000])
def test_text_that_is_not_json(text):
    with pytest.raises(ContractError, match=r"model\.json is not valid JSON"):
        contract_from_json(text, origin="model.json")


@pytest.mark.parametrize("text", ["[]", "null", '"text"', "3"])
def test_json_that_is_not_an_object(text):
    with pytest.raises(ContractError, match="must be a JSON object"):
        contract_from_json(text)


@pytest.mark.parametrize("name", ["task", "family", "input", "outputs"])
def test_missing_field_is_named(name):
    fields = json.loads(CONTRACT.to_json())
    del fields[name]
    with pytest.raises(ContractError, match=f"lacks the field '{name}'"):
        contract_from_json(json.dumps(fields))


def with_input(**fields):
    return {"input": dataclasses.asdict(CONTRACT.input) | fields}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "depth"}, "task is 'depth', expected one of 'segmentation', 'pose'"),
        ({"task": ["segmentation"]}, "task is"),
        ({"family": 3}, "family is 3, expected str"),
        ({"opset": "17"}, "opset is '17', expected int"),
        ({"opset": True}, "opset is True, expected int"),
        ({"classes": "road"}, "classes is 'road', expected a list"),
        ({"classes": [1, 2]}, "classes is 1, expected str"),
        ({"palette": [[1, 2], [3, 4]]}, "palette has 2 values, expected 3"),
        ({"palette": [[1, 2, 3.5], [1, 2, 3]]}, "palette is 3.5, expected int"),
        ({"recipe": [1, 2]}, "recipe is 1, expected a JSON object"),
        ({"outputs": [{"name": "x", "kind": "logits"}]}, "outputs lacks the field 'stride'"),
        ({"outputs": ["logits"]}, "outputs must be a JSON object, not 'logits'"),
        ({"input": None}, "input must be a JSON object"),
        (with_input(height="tall"), "input: height is 'tall', expected int"),
        (with_input(layout="HWC"), "layout is 'HWC', expected one of 'NHWC', 'NCHW', 'NV12'"),
        (with_input(matrix="bt2020"), "matrix is 'bt2020', expected one of 'bt601', 'bt709'"),
        (with_input(layout="NV12"), r"NV12 needs uint8, a matrix \(bt601 or bt709\), and even height and width"),
        (with_input(layout="NV12", matrix="bt601", height=1081), "NV12 needs .* even height"),
        (with_input(layout="NV12", matrix="bt709", dtype="float32"), "NV12 needs uint8"),
        (with_input(interpolation="cubic"), "interpolation is 'cubic', expected one of 'area', 'linear', 'antialias'"),
        (with_input(channels=True), "channels is True, expected int"),
        (with_input(mean=[1, 2, "x"]), "mean is 'x', expected float"),
        (with_input(mean=[1, 2, 10**400]), "mean is too large"),
        (with_input(normalized_in_graph=1), "normalized_in_graph is 1, expected bool"),
    ],
)
def test_value_of_the_wrong_type_is_named(fields, message):
    with pytest.raises(ContractError, match=message):
        contract_from_json(changed(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (with_input(height=0), "2x0x1920 must be positive"),
        (with_input(batch=-1), "must be positive"),
        (with_input(width=10**9), "2x1080x1000000000 is more than fits into memory"),
        (with_input(mean=[1, 2, float("nan")]), "mean must be finite"),
        (with_input(mean=[1, 2]), "2 values of mean and 3 of std for 3 channels"),
        (with_input(channels=4), "3 values of mean and 3 of std for 4 channels"),
        (with_input(channels=0, mean=[], std=[]), "0 input channels, expected 1 to 64"),
        (with_input(channels=65, mean=[0] * 65, std=[1] * 65), "65 input channels, expected 1 to 64"),
        (with_input(channels=1, mean=[0], std=[1]), "1 input channels need float32 and NCHW"),
        (
            {"outputs": [{"name": "out", "kind": "heatmaps", "stride": 4, "align_corners": True}]},
            "heatmaps are never upsampled, so align_corners and through_input say nothing of them",
        ),
        (with_input(std=[1, 0, 1]), "std positive"),
        (with_input(std=[1, float("inf"), 1]), "std positive"),
        (with_input(normalized_in_graph=False), "uint8 cannot hold normalized values"),
        ({"outputs": []}, "at least one output"),
        ({"outputs": [{"name": "x", "kind": "logits", "stride": 0}]}, "stride must be at least 1"),
        ({"classes": [], "palette": []}, "0 classes, expected 1 to 256"),
        ({"classes": ["x"] * 257, "palette": [[0, 0, 0]] * 257}, "257 classes"),
        ({"palette": [[1, 2, 3]]}, "1 colors for 2 classes"),
        ({"palette": [[1, 2, 256], [0, 0, 0]]}, "palette values must lie in"),
        ({"palette": [[-1, 2, 3], [0, 0, 0]]}, "palette values must lie in"),
    ],
)
def test_value_that_no_model_can_mean(fields, message):
    with pytest.raises(ContractError, match=f"cannot be right: .*{message}"):
        contract_from_json(changed(**fields))


def with_keypoints(**fields):
    return {"keypoints": dataclasses.asdict(POSE.keypoints) | fields}


def test_segmentation_needs_classes_and_pose_does_not():
    fields = json.loads(CONTRACT.to_json())
    del fields["classes"], fields["palette"]
    with pytest.raises(ContractError, match="0 classes, expected 1 to 256"):
        contract_from_json(json.dumps(fields))
    assert POSE.classes == ()
    assert CONTRACT.keypoints is None


def test_pose_needs_keypoints_and_heatmaps():
    with pytest.raises(ContractError, match="a pose model needs keypoints"):
        contract_from_json(changed(POSE, keypoints=None))
    with pytest.raises(ContractError, match="an output of the kind heatmaps"):
        contract_from_json(changed(POSE, outputs=[{"name": "x", "kind": "logits", "stride": 4}]))


def test_missing_fields_of_keypoints_take_their_defaults():
    again = contract_from_json(changed(POSE, keypoints={"names": ["a", "b"]}))
    assert again.keypoints == KeypointSpec(names=("a", "b"), skeleton=(), flip_pairs=(), box_padding=1.25)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keypoints": ["nose"]}, r"keypoints must be a JSON object, not \['nose'\]"),
        ({"keypoints": {}}, "keypoints lacks the field 'names'"),
        (with_keypoints(names="nose"), "names is 'nose', expected a list"),
        (with_keypoints(names=[1]), "names is 1, expected str"),
        (with_keypoints(skeleton=[[0, 1, 2]]), "skeleton has 3 values, expected 2"),
        (with_keypoints(skeleton=[["nose", "left_eye"]]), "skeleton is 'nose', expected int"),
        (with_keypoints(flip_pairs=[[True, 2]]), "flip_pairs is True, expected int"),
        (with_keypoints(decoding="dark"), "decoding is 'dark', expected one of 'quarter'"),
        (with_keypoints(box_padding="1"), "box_padding is '1', expected float"),
        (with_keypoints(names=[], skeleton=[], flip_pairs=[]), "at least one keypoint"),
        (with_keypoints(names=["a", "b", "a"]), "the name 'a' is given twice"),
        (with_keypoints(skeleton=[[0, 3]]), r"skeleton has \(0, 3\), expected two different indices in 0..2"),
        (with_keypoints(skeleton=[[-1, 0]]), r"skeleton has \(-1, 0\)"),
        (with_keypoints(skeleton=[[1, 1]]), r"skeleton has \(1, 1\)"),
        (with_keypoints(skeleton=[[0, 1], [1, 0]]), r"the limb \(0, 1\) is given twice"),
        (with_keypoints(flip_pairs=[[1, 3]]), r"flip_pairs has \(1, 3\)"),
        (with_keypoints(flip_pairs=[[2, 2]]), r"flip_pairs has \(2, 2\)"),
        (with_keypoints(flip_pairs=[[0, 1], [1, 2]]), "keypoint 1 is in two flip_pairs"),
        (with_keypoints(box_padding=0), "box_padding is 0.0, expected 0.01 to 100"),
        (with_keypoints(box_padding=float("nan")), "box_padding is nan"),
        (with_keypoints(box_padding=float("inf")), "box_padding is inf"),
    ],
)
def test_keypoints_that_no_model_can_mean(fields, message):
    with pytest.raises(ContractError, match=message):
        contract_from_json(changed(POSE, **fields))


def test_flip_indices_exchange_the_pairs_only():
    spec = KeypointSpec(names=tuple("abcde"), flip_pairs=((4, 1), (0, 3)))
    assert spec.flip_indices == (3, 4, 2, 0, 1)
    assert tuple(spec.flip_indices[index] for index in spec.flip_indices) == (0, 1, 2, 3, 4)


def test_all_problems_are_told_at_once():
    with pytest.raises(ContractError, match="must be positive; there must be at least one output"):
        contract_from_json(changed(outputs=[], **with_input(width=0)))


def test_values_are_checked_when_made_in_python_too():
    with pytest.raises(ContractError, match="3 colors for 2 classes"):
        dataclasses.replace(CONTRACT, palette=((0, 0, 0),) * 3)


def test_contract_is_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CONTRACT.family = "other"


@pytest.mark.parametrize(("layout", "shape"), [("NHWC", (2, 1080, 1920, 3)), ("NCHW", (2, 3, 1080, 1920))])
def test_shape_follows_the_layout(layout, shape):
    spec = dataclasses.replace(CONTRACT.input, layout=layout)
    assert spec.shape == shape
    assert spec.size_hw == (1080, 1920)


def test_output_of_kind_takes_the_first_that_fits():
    assert CONTRACT.output_of_kind("labels").name == "labels"
    assert CONTRACT.output_of_kind("labels", "logits").name == "logits"
    only_labels = dataclasses.replace(CONTRACT, outputs=CONTRACT.outputs[1:])
    with pytest.raises(ContractError, match="has the outputs labels, but logits is needed"):
        only_labels.output_of_kind("logits")


def test_contract_errors_are_model_file_errors_and_exit_with_1():
    assert issubclass(ContractError, ModelFileError)
    assert issubclass(ContractError, SfppError)
    assert ContractError.exit_code == 1


NO_NAMES = ["\ud800", "a\udfffb", "nul\0", "two\nlines", "\x1b[2J", "n" * 300]


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_no_library_can_be_given_is_no_name(name):
    """OpenCV ends the process at half of a surrogate pair, and protobuf raises."""
    changes = [
        ({"classes": ("road", name)}, CONTRACT),
        ({"input": dataclasses.replace(CONTRACT.input, name=name)}, CONTRACT),
        ({"outputs": (dataclasses.replace(CONTRACT.outputs[0], name=name),)}, CONTRACT),
    ]
    for fields, contract in changes:
        with pytest.raises(ContractError, match=r"the contract cannot be right: .*(holds|has 300 characters)"):
            dataclasses.replace(contract, **fields)
    with pytest.raises(ContractError, match=r"the keypoints cannot be right: .*(holds|has 300 characters)"):
        KeypointSpec(names=("nose", name))
    fields = json.loads(CONTRACT.to_json()) | {"classes": ["road", name]}
    with pytest.raises(ContractError, match=r"holds|has 300 characters") as refused:
        contract_from_json(json.dumps(fields))
    str(refused.value).encode()  # the message itself is a text


@pytest.mark.parametrize("field", ["licence", "sfpp_version", "variant", "recipe", "checkpoint_sha256"])
def test_every_text_of_a_contract_can_be_written(field):
    bad = "half \ud800"
    value = ({"kv_mode": bad}, {}, {}, {}) if field == "recipe" else bad
    with pytest.raises(ContractError, match="holds half of a surrogate pair"):
        dataclasses.replace(CONTRACT, **{field: value})
    with pytest.raises(ContractError, match="holds half of a surrogate pair"):
        contract_from_json(changed(**{field: value}))
    assert dataclasses.replace(CONTRACT, licence="two\nlines").licence == "two\nlines"
