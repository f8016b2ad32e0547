import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sfpp.runtime.backends import FunctionBackend
from sfpp.runtime.contract import InputSpec, KeypointSpec, ModelContract, OutputSpec
from sfpp.runtime.crops import crop_from_box
from sfpp.runtime.errors import BackendError, ContractError, MediaError, ModelFileError, UsageError
from sfpp.runtime.people.heatmaps import average_with_mirrored, keypoints_from_heatmaps
from sfpp.runtime.pose import Pose, PoseEstimator

SPEC = KeypointSpec(names=("left_x", "right_x", "top"), skeleton=((0, 2), (1, 2)), flip_pairs=((0, 1),))
NAME = "crops"


def contract_for(*, height=64, width=48, batch=1, stride=4, spec=SPEC, **fields):
    return ModelContract(
        task="pose",
        family="segformer",
        size="b0",
        variant="fast",
        input=InputSpec(name=NAME, height=height, width=width, batch=batch, **fields),
        outputs=(OutputSpec(name="heatmaps", kind="heatmaps", stride=stride),),
        keypoints=spec,
    )


def color_finder(inputs):
    """A model whose heatmaps are the crop's red, green and blue, 0..1, at every fourth pixel."""
    crops = inputs[NAME][:, ::4, ::4].astype(np.float32) / 255
    return {"heatmaps": np.ascontiguousarray(crops.transpose(0, 3, 1, 2))}


def side_finder(inputs):
    """A model that knows left from right: its first keypoint is the brightest cell of the left half, and so on."""
    bright = inputs[NAME][:, ::4, ::4].max(axis=3).astype(np.float32) / 255
    half = bright.shape[2] // 2
    heatmaps = np.zeros((len(bright), 3, *bright.shape[1:]), np.float32)
    heatmaps[:, 0, :, :half] = bright[:, :, :half]
    heatmaps[:, 1, :, half:] = bright[:, :, half:]
    heatmaps[:, 2] = bright / 2
    return {"heatmaps": heatmaps}


def estimator_of(function=color_finder, *, flip_test=False, **options):
    return PoseEstimator(FunctionBackend(function, metadata={}), contract_for(**options), flip_test=flip_test)


def spots(points_xy, size_hw, *, sigma):
    """A BGR frame with one red, one green and one blue spot at exact points."""
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    frame = np.zeros((*size_hw, 3))
    for channel, (px, py) in zip((2, 1, 0), points_xy, strict=True):
        frame[..., channel] = 250 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2))
    return frame.round().astype(np.uint8)


def pixels_per_cell(box, *, padding=1.25, cells_hw=(16, 12)):
    return max(box[2] / cells_hw[1], box[3] / cells_hw[0]) * padding


@pytest.mark.parametrize(
    "box",
    [(200, 100, 90, 120), (150, 200, 300, 80), (300, 60, 60, 300), (-80, -40, 240, 320), (520, 330, 200, 260)],
    ids=["fitting", "wide", "tall", "beyond the upper left", "beyond the lower right"],
)
def test_keypoints_come_back_within_half_a_heatmap_cell(box):
    size_hw, cell = (480, 640), pixels_per_cell(box)
    rng = np.random.default_rng(1)
    low = np.maximum((box[0], box[1]), 0) + cell
    high = np.minimum((box[0] + box[2], box[1] + box[3]), size_hw[::-1]) - cell
    estimator = estimator_of()
    for _ in range(5):
        points = rng.uniform(low, np.maximum(high, low + 1), size=(3, 2))
        pose = estimator(spots(points, size_hw, sigma=1.5 * cell), [box])
        assert np.abs(pose.keypoints_xy[0] - points).max() <= 0.5 * cell
        assert pose.scores.min() > 0.8


def test_shapes_types_and_facts():
    boxes = [(10, 10, 30, 40), (5, 5, 20, 50)]
    pose = estimator_of()(np.zeros((100, 90, 3), np.uint8), boxes)
    assert (pose.keypoints_xy.shape, pose.keypoints_xy.dtype) == ((2, 3, 2), np.float32)
    assert (pose.scores.shape, pose.scores.dtype) == ((2, 3), np.float32)
    np.testing.assert_array_equal(pose.boxes_xywh, np.array(boxes, np.float32))
    assert (pose.names, pose.skeleton, len(pose)) == (SPEC.names, SPEC.skeleton, 2)
    assert not pose.scores.any()
    assert np.isfinite(pose.keypoints_xy).all()


def test_padding_is_the_contracts():
    frame = np.random.default_rng(2).integers(0, 256, size=(200, 300, 3), dtype=np.uint8)
    box = np.array([50, 40, 48, 64], np.float32)
    plain = estimator_of(spec=dataclasses.replace(SPEC, box_padding=1.0))
    np.testing.assert_array_equal(plain.prepare(frame, [box]).batches[0][0, ..., ::-1], frame[40:104, 50:98])
    wide = estimator_of(spec=dataclasses.replace(SPEC, box_padding=2.0))
    expected = crop_from_box(frame, box, (64, 48), padding=2.0)
    np.testing.assert_array_equal(wide.prepare(frame, [box]).batches[0][0, ..., ::-1], expected)
    points = np.array([[70.0, 60.0], [80.0, 70.0], [60.0, 90.0]])
    found = wide(spots(points, (200, 300), sigma=12), [box]).keypoints_xy[0]
    assert np.abs(found - points).max() <= 0.5 * pixels_per_cell(box, padding=2.0)


def test_normalization_and_layout_are_the_contracts():
    frame = np.random.default_rng(3).integers(0, 256, size=(100, 100, 3), dtype=np.uint8)
    fields = {"layout": "NCHW", "dtype": "float32", "normalized_in_graph": False}
    (tensor,) = estimator_of(**fields).prepare(frame, [(20, 20, 30, 40)]).batches
    rgb = crop_from_box(frame, np.array([20, 20, 30, 40]), (64, 48))[..., ::-1].astype(np.float64)
    expected = (rgb - (123.675, 116.28, 103.53)) / (58.395, 57.12, 57.375)
    np.testing.assert_allclose(tensor, expected.transpose(2, 0, 1)[np.newaxis], rtol=1e-5, atol=1e-6)
    assert tensor.dtype == np.float32


def counted(function, calls):
    def run(inputs):
        calls.append(inputs[NAME])
        return function(inputs)

    return run


def five_people():
    frame = np.random.default_rng(4).integers(0, 256, size=(150, 200, 3), dtype=np.uint8)
    return frame, [(10 * n, 5 * n, 40 + 10 * n, 90) for n in range(5)]


@pytest.mark.parametrize(("flip_test", "runs"), [(False, 2), (True, 3)])
def test_people_go_in_groups_and_the_last_is_filled_up(flip_test, runs):
    frame, boxes = five_people()
    calls = []
    pose = estimator_of(counted(side_finder, calls), batch=4, flip_test=flip_test)(frame, boxes)
    assert [call.shape for call in calls] == [(4, 64, 48, 3)] * runs
    single = estimator_of(side_finder, flip_test=flip_test)
    for person, box in enumerate(boxes):
        alone = single(frame, [box])
        np.testing.assert_array_equal(alone.keypoints_xy[0], pose.keypoints_xy[person])
        np.testing.assert_array_equal(alone.scores[0], pose.scores[person])


def test_flip_test_runs_the_mirrored_crops_and_averages():
    frame, boxes = five_people()
    calls = []
    pose = estimator_of(counted(side_finder, calls), batch=10, flip_test=True)(frame, boxes)
    (crops,) = calls
    np.testing.assert_array_equal(crops[5:], crops[:5, :, ::-1])
    plain, mirrored = (side_finder({NAME: each})["heatmaps"] for each in (crops[:5], crops[5:]))
    _, scores = keypoints_from_heatmaps(average_with_mirrored(plain, mirrored, (1, 0, 2)))
    np.testing.assert_array_equal(pose.scores, scores)


def test_flip_test_keeps_left_and_right_where_they_are():
    box = (100, 100, 240, 320)
    cell = pixels_per_cell(box)
    points = np.array([[140.0, 260.0], [300.0, 180.0], [300.0, 180.0]])
    frame = spots(points, (480, 640), sigma=1.5 * cell)
    for flip_test in (False, True):
        found = estimator_of(side_finder, flip_test=flip_test)(frame, [box])
        assert np.abs(found.keypoints_xy[0, :2] - points[:2]).max() <= 0.5 * cell
        assert found.scores[0, :2].min() > 0.8


def test_flip_test_without_pairs():
    with pytest.raises(UsageError, match="no flip_pairs"):
        estimator_of(flip_test=True, spec=KeypointSpec(names=("a", "b", "c")))


@pytest.mark.parametrize("boxes", [[], (), np.zeros((0, 4), np.float32)])
def test_nobody_is_an_empty_answer(boxes):
    calls = []
    pose = estimator_of(counted(color_finder, calls), flip_test=True)(np.zeros((50, 60, 3), np.uint8), boxes)
    assert calls == []
    assert (pose.keypoints_xy.shape, pose.scores.shape, pose.boxes_xywh.shape) == ((0, 3, 2), (0, 3), (0, 4))
    assert {pose.keypoints_xy.dtype, pose.scores.dtype, pose.boxes_xywh.dtype} == {np.dtype(np.float32)}
    assert pose.above(0.5).shape == (0, 3)
    frame = np.full((50, 60, 3), 7, np.uint8)
    np.testing.assert_array_equal(pose.draw(frame), frame)


@pytest.mark.parametrize("frame", [None, np.zeros((0, 0, 3), np.uint8), np.zeros((5, 5, 3), np.float32)])
@pytest.mark.parametrize("boxes", [[], [(1, 1, 2, 2)]])
def test_frame_that_is_none(frame, boxes):
    with pytest.raises(MediaError, match="expected"):
        estimator_of()(frame, boxes)


@pytest.mark.parametrize("given", ["photo.jpg", Path("photo.jpg")])
def test_a_name_in_place_of_a_frame_is_told_what_to_do(given):
    with pytest.raises(MediaError, match=r"the name 'photo\.jpg'.*read_image\('photo\.jpg'\), or .*stream"):
        estimator_of()(given)


def test_several_frames_are_taken_one_by_one():
    with pytest.raises(MediaError, match="a list of 2, expected one frame; call the model for each of them"):
        estimator_of()([np.zeros((4, 4, 3), np.uint8)] * 2)


def test_a_call_without_boxes_says_how_to_give_them():
    with pytest.raises(UsageError, match=r"whole frame is \[\(0, 0, 30, 20\)\], and model\.stream"):
        estimator_of()(np.zeros((20, 30, 3), np.uint8))


def test_box_that_cannot_be_meant():
    with pytest.raises(UsageError, match=r"box 1 is .* finite"):
        estimator_of()(np.zeros((50, 60, 3), np.uint8), [(1, 1, 5, 5), (1, np.nan, 5, 5)])
    with pytest.raises(UsageError, match="does not touch the frame of 60x50"):
        estimator_of()(np.zeros((50, 60, 3), np.uint8), [(60, 1, 5, 5)])


def test_grey_frames_and_views_are_taken():
    frame = np.random.default_rng(5).integers(0, 256, size=(80, 90), dtype=np.uint8)
    boxes = [(10, 10, 40, 50)]
    three = np.stack([frame] * 3, axis=-1)
    expected = estimator_of()(three, boxes).keypoints_xy
    np.testing.assert_array_equal(estimator_of()(frame, boxes).keypoints_xy, expected)
    backwards = three[:, ::-1].copy()[:, ::-1]
    np.testing.assert_array_equal(estimator_of()(backwards, boxes).keypoints_xy, expected)


def test_three_steps_make_a_call():
    frame, boxes = five_people()
    estimator = estimator_of(batch=2)
    prepared = estimator.prepare(frame, boxes)
    assert len(prepared.batches) == 3
    pose = estimator.finish(estimator.infer(prepared), prepared)
    np.testing.assert_array_equal(pose.keypoints_xy, estimator(frame, boxes).keypoints_xy)


def test_heatmaps_at_another_stride():
    # What a graph gives that halves its input before the network; 66 rows and 50 columns then end one cell short.
    def coarse(inputs):
        heatmaps = np.zeros((1, 3, 8, 6), np.float32)
        heatmaps[0, :, 4, 3] = 1
        return {"heatmaps": heatmaps}

    estimator = estimator_of(coarse, height=66, width=50, stride=8, spec=dataclasses.replace(SPEC, box_padding=1.0))
    found = estimator(np.zeros((66, 50, 3), np.uint8), [(0, 0, 50, 66)]).keypoints_xy
    np.testing.assert_allclose(found[0, 0], (3 / 6 * 50, 4 / 8 * 66))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((1, 3, 16), np.float32), r"1x3x16 float32, expected 1x3x16x12 \(batch, keypoints, rows, columns\)"),
        (np.zeros((1, 4, 16, 12), np.float32), "1x4x16x12 float32, expected 1x3x16x12"),
        (np.zeros((2, 3, 16, 12), np.float32), "2x3x16x12"),
        (np.zeros((1, 3, 12, 16), np.float32), "1x3x12x16"),
        (np.zeros((1, 3, 14, 12), np.float32), "1x3x14x12"),
        (np.zeros((1, 3, 16, 12), np.uint8), "uint8"),
    ],
)
def test_heatmaps_that_do_not_fit_the_contract(values, message):
    with pytest.raises(ModelFileError, match=message):
        estimator_of(lambda _inputs: {"heatmaps": values})(np.zeros((50, 60, 3), np.uint8), [(1, 1, 5, 5)])


def test_missing_output_lists_what_there_is():
    with pytest.raises(ModelFileError, match="promises the output 'heatmaps', but the model gives other"):
        estimator_of(lambda _inputs: {"other": np.zeros(1)})(np.zeros((50, 60, 3), np.uint8), [(1, 1, 5, 5)])


def test_nan_heatmaps_are_an_error():
    values = np.full((1, 3, 16, 12), np.nan, np.float32)
    with pytest.raises(BackendError, match="NaN"):
        estimator_of(lambda _inputs: {"heatmaps": values})(np.zeros((50, 60, 3), np.uint8), [(1, 1, 5, 5)])


def test_segmentation_contract_is_refused():
    contract = ModelContract(
        task="segmentation",
        family="segformer",
        size="b0",
        variant="fast",
        input=InputSpec(name=NAME, height=64, width=48),
        outputs=(OutputSpec(name="logits", kind="logits", stride=4),),
        classes=("a",),
        palette=((0, 0, 0),),
    )
    with pytest.raises(ContractError, match="has the outputs logits, but heatmaps is needed"):
        PoseEstimator(FunctionBackend(color_finder, metadata={}), contract)
    heatmaps = dataclasses.replace(contract, outputs=(OutputSpec(name="x", kind="heatmaps", stride=4),))
    with pytest.raises(ContractError, match="segmentation model without keypoints"):
        PoseEstimator(FunctionBackend(color_finder, metadata={}), heatmaps)


def test_context_manager_closes_the_backend():
    closed = []

    class Closing(FunctionBackend):
        def close(self):
            closed.append(True)

    with PoseEstimator(Closing(color_finder, metadata={}), contract_for(), flip_test=True) as estimator:
        assert not closed
        assert estimator.flip_test
        assert estimator.contract == contract_for()
        assert estimator.description == (
            "segformer b0 fast fp32 pose, 3 keypoints, input 48x64 (width x height), flip test, python function"
        )
    assert closed == [True]


def test_above_and_draw_use_the_threshold():
    points = np.array([[[20, 80], [80, 80], [50, 20]]], np.float32)
    pose = Pose(points, np.array([[0.2, 0.6, 0.9]], np.float32), np.array([[0, 0, 100, 100]], np.float32), SPEC)
    assert pose.above(0.6).tolist() == [[False, True, True]]
    frame = np.zeros((100, 100, 3), np.uint8)
    assert not pose.draw(frame, threshold=0.5)[80, 20].any()
    assert pose.draw(frame, threshold=0.1, ids=[3])[80, 20].any()
    assert not frame.any()
