import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from sfpp.runtime.backends import FunctionBackend
from sfpp.runtime.contract import InputSpec, ModelContract, OutputSpec
from sfpp.runtime.errors import BackendError, ContractError, MediaError, ModelFileError, UsageError
from sfpp.runtime.images import place_frame
from sfpp.runtime.labels import labels_from_logits
from sfpp.runtime.motion.options import Motion
from sfpp.runtime.segmentation import PreparedFrames, Segmentation, Segmenter
from sfpp.runtime.video.frame import Frame

CLASSES = ("red", "green", "blue")
PALETTE = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def contract_for(*, kind="logits", height=32, width=64, batch=1, stride=4):
    return ModelContract(
        task="segmentation",
        family="segformer",
        size="b0",
        variant="fast",
        input=InputSpec(name="frame", height=height, width=width, batch=batch),
        outputs=(OutputSpec(name="out", kind=kind, stride=stride if kind == "logits" else 1),),
        classes=CLASSES,
        palette=PALETTE,
    )


def strongest_channel(inputs, *, stride=4):
    """A model that looks at its input: the logits are the mean red, green and blue of each 4x4 block."""
    frame = inputs["frame"].astype(np.float32)
    n, h, w, _ = frame.shape
    blocks = frame.reshape(n, h // stride, stride, w // stride, stride, 3).mean(axis=(2, 4))
    return {"out": np.ascontiguousarray(blocks.transpose(0, 3, 1, 2))}


def strongest_channel_labels(inputs):
    return {"out": inputs["frame"].argmax(axis=-1).astype(np.uint8)}


def segmenter_of(function, **options):
    return Segmenter(FunctionBackend(function, metadata={}), contract_for(**options))


def fixed_output(values):
    return lambda _inputs: {"out": values}


def quadrants(height, width):
    """A BGR frame whose quarters are red, green / blue, red."""
    frame = np.zeros((height, width, 3), np.uint8)
    top, left = slice(0, height // 2), slice(0, width // 2)
    bottom, right = slice(height // 2, None), slice(width // 2, None)
    frame[top, left, 2] = frame[bottom, right, 2] = 250
    frame[top, right, 1] = 250
    frame[bottom, left, 0] = 250
    return frame


def quadrant_labels(height, width):
    return quadrants(height, width)[..., ::-1].argmax(axis=-1)


@pytest.mark.parametrize(
    ("kind", "function"),
    [("logits", strongest_channel), ("labels", strongest_channel_labels)],
    ids=["logits", "labels"],
)
@pytest.mark.parametrize("size_hw", [(32, 64), (64, 128), (100, 60), (20, 200), (10, 12)])
def test_labels_lie_where_the_frame_shows_them(kind, function, size_hw):
    result = segmenter_of(function, kind=kind)(quadrants(*size_hw))
    assert result.labels.shape == size_hw
    assert result.labels.dtype == np.uint8
    # A letterbox, a crop or a mapping that is off by more than rounding would move the quarters' borders.
    assert (result.labels == quadrant_labels(*size_hw)).mean() > (0.95 if min(size_hw) > 20 else 0.9)


def test_logits_are_sampled_inside_the_letterbox():
    frame = quadrants(64, 64)
    result = segmenter_of(strongest_channel)(frame)
    # 64x64 becomes 32x32 at column 16 of the input: logits columns 4..12.
    logits = strongest_channel({"frame": segmenter_of(strongest_channel).prepare(frame).tensor})["out"][0]
    np.testing.assert_array_equal(result.labels, labels_from_logits(logits, (64, 64), region=(0, 4, 8, 8)))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("resize", "size_hw"), [("stretch", (75, 98)), ("letterbox", (40, 101)), ("letterbox", (99, 64))]
)
def test_logits_pass_through_the_inputs_size_where_the_library_does_so(resize, size_hw, align_corners):
    """Two steps of upsampling, as MMSegmentation takes them, with its own border cut off in between."""
    torch = pytest.importorskip("torch")
    how = {"mode": "bilinear", "align_corners": align_corners}
    logits = np.random.default_rng(3).normal(size=(1, 3, 8, 16)).astype(np.float32)
    contract = contract_for(kind="logits")
    contract = dataclasses.replace(
        contract,
        input=dataclasses.replace(contract.input, resize=resize),
        outputs=(dataclasses.replace(contract.outputs[0], align_corners=align_corners, through_input=True),),
    )
    segmenter = Segmenter(FunctionBackend(fixed_output(logits), metadata={}), contract)
    labels = segmenter(np.zeros((*size_hw, 3), np.uint8)).labels
    place = place_frame(size_hw, contract.input)
    whole = torch.nn.functional.interpolate(torch.from_numpy(logits), (32, 64), **how)
    inside = whole[:, :, place.top : place.top + place.height, place.left : place.left + place.width]
    expected = torch.nn.functional.interpolate(inside, size_hw, **how).argmax(1)[0]
    differing = labels != expected.numpy()
    if resize == "letterbox" and not align_corners:  # what lies beyond the border is seen by the outermost pixels
        differing = differing[3:-3, 3:-3]
    assert np.mean(differing) < 0.001
    once = dataclasses.replace(contract, outputs=(dataclasses.replace(contract.outputs[0], through_input=False),))
    segmenter = Segmenter(FunctionBackend(fixed_output(logits), metadata={}), once)
    assert np.mean(segmenter(np.zeros((*size_hw, 3), np.uint8)).labels != labels) > 0.002


@pytest.mark.parametrize("kind", ["logits", "labels"])
@pytest.mark.parametrize(
    ("resize", "size_hw"), [("stretch", (75, 98)), ("letterbox", (40, 101)), ("letterbox", (99, 64))]
)
def test_corners_are_aligned_as_trained(kind, resize, size_hw):
    """As MMSegmentation: upsample to the input, cut off the border, resize to the frame; corners aligned both times."""
    torch = pytest.importorskip("torch")
    rows, columns = (8, 16) if kind == "logits" else (32, 64)
    logits = np.random.default_rng(23).normal(size=(1, 3, rows, columns)).astype(np.float32)
    logits = cv2.GaussianBlur(logits[0].transpose(1, 2, 0), (0, 0), rows / 8).transpose(2, 0, 1)[np.newaxis]
    contract = contract_for(kind=kind)
    contract = dataclasses.replace(
        contract,
        input=dataclasses.replace(contract.input, resize=resize),
        outputs=(dataclasses.replace(contract.outputs[0], align_corners=True),),
    )
    output = logits if kind == "logits" else logits.argmax(1).astype(np.uint8)
    segmenter = Segmenter(FunctionBackend(fixed_output(output), metadata={}), contract)
    labels = segmenter(np.zeros((*size_hw, 3), np.uint8)).labels
    place = place_frame(size_hw, contract.input)
    whole = torch.nn.functional.interpolate(torch.from_numpy(logits), (32, 64), mode="bilinear", align_corners=True)
    inside = whole[:, :, place.top : place.top + place.height, place.left : place.left + place.width]
    expected = torch.nn.functional.interpolate(inside, size_hw, mode="bilinear", align_corners=True).argmax(1)[0]
    # Bilinear twice is not quite bilinear once; and the nearest label is the right one but for the borders.
    assert np.mean(labels == expected.numpy()) > (0.99 if kind == "logits" else 0.95)
    if kind == "labels":
        down, across = (
            np.floor(np.linspace(start, start + count - 1, pixels) + 0.5).astype(int)
            for start, count, pixels in zip((place.top, place.left), (place.height, place.width), size_hw, strict=True)
        )
        np.testing.assert_array_equal(labels, output[0][np.ix_(down, across)])
    if kind == "logits" and resize == "stretch":
        once = torch.nn.functional.interpolate(torch.from_numpy(logits), size_hw, mode="bilinear", align_corners=True)
        assert np.mean(labels == once.argmax(1)[0].numpy()) > 0.9995


def test_a_model_of_four_channels_is_fed_by_the_program():
    """By the steps that a call takes, with an input of its own; frames are refused before the first one is read."""
    contract = contract_for()
    channels = {"channels": 4, "mean": (0,) * 4, "std": (1,) * 4}
    spec = InputSpec("frame", 32, 64, layout="NCHW", dtype="float32", normalized_in_graph=False, **channels)
    contract = dataclasses.replace(contract, input=spec)
    planes = lambda inputs: {"out": np.ascontiguousarray(inputs["frame"][:, 1:, ::4, ::4])}  # noqa: E731
    segmenter = Segmenter(FunctionBackend(planes, metadata={}), contract)
    with pytest.raises(UsageError, match="takes 4 channels"):
        segmenter.steps()
    with pytest.raises(UsageError, match="takes 4 channels"):
        segmenter(np.zeros((32, 64, 3), np.uint8))
    tensor = np.zeros((1, 4, 32, 64), np.float32)
    tensor[0, 2, :16] = tensor[0, 3, 16:] = 1
    prepared = PreparedFrames(tensor, (place_frame((64, 128), spec),))
    labels = segmenter.finish(segmenter.infer(prepared), prepared).labels
    assert labels.shape == (64, 128)
    assert (labels[:30] == 1).all()
    assert (labels[34:] == 2).all()


def test_half_precision_logits_and_wide_labels_are_taken():
    halves = segmenter_of(lambda inputs: {"out": strongest_channel(inputs)["out"].astype(np.float16)})
    wide = segmenter_of(lambda inputs: {"out": inputs["frame"].argmax(axis=-1)}, kind="labels")  # int64
    frame = quadrants(32, 64)
    for segmenter in (halves, wide):
        labels = segmenter(frame).labels
        assert labels.dtype == np.uint8
        assert (labels == quadrant_labels(32, 64)).mean() > 0.97


def test_batch_equals_singles_in_order():
    calls = []

    def counted(inputs):
        calls.append(inputs["frame"].shape)
        return strongest_channel(inputs)

    frames = [quadrants(40, 50), quadrants(40, 50)[:, ::-1], quadrants(90, 30), quadrants(32, 64), quadrants(8, 8)]
    pairs = segmenter_of(counted, batch=2)
    results = []
    for batch in (frames[:2], frames[2:4], frames[4:]):
        prepared = pairs.prepare_batch(batch)
        results += pairs.finish_batch(pairs.infer(prepared), prepared)
    assert calls == [(2, 32, 64, 3)] * 3
    single = segmenter_of(strongest_channel)
    for frame, result in zip(frames, results, strict=True):
        np.testing.assert_array_equal(result.labels, single(frame).labels)
    np.testing.assert_array_equal(segmenter_of(strongest_channel, batch=3)(frames[2]).labels, results[2].labels)


def test_three_steps_make_a_call():
    segmenter = segmenter_of(strongest_channel)
    frame = quadrants(50, 70)
    prepared = segmenter.prepare(frame)
    assert prepared.tensor.shape == (1, 32, 64, 3)
    result = segmenter.finish(segmenter.infer(prepared), prepared)
    np.testing.assert_array_equal(result.labels, segmenter(frame).labels)


def test_finish_of_several_frames_points_to_finish_batch():
    segmenter = segmenter_of(strongest_channel, batch=2)
    prepared = segmenter.prepare_batch([quadrants(8, 8), quadrants(8, 8)])
    with pytest.raises(UsageError, match=r"2 frames.*finish_batch"):
        segmenter.finish(segmenter.infer(prepared), prepared)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((1, 3, 8), np.float32), r"1x3x8 float32, expected 1x3x8x16 \(batch, classes, rows, columns\)"),
        (np.zeros((1, 4, 8, 16), np.float32), "1x4x8x16 float32, expected 1x3x8x16"),
        (np.zeros((2, 3, 8, 16), np.float32), "2x3x8x16"),
        (np.zeros((1, 3, 16, 8), np.float32), "1x3x16x8"),
        (np.zeros((1, 3, 8, 14), np.float32), "1x3x8x14"),
        (np.zeros((1, 3, 8, 16), np.int64), "int64"),
    ],
)
def test_logits_that_do_not_fit_the_contract(values, message):
    with pytest.raises(ModelFileError, match=message):
        segmenter_of(fixed_output(values))(quadrants(32, 64))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((1, 32, 63), np.float32), r"float32, expected 1x32x64 \(batch, rows, columns\) integers"),
        (np.zeros((1, 1, 32, 64), np.uint8), "1x1x32x64 uint8"),
        (np.zeros((1, 64, 32), np.uint8), "1x64x32 uint8"),
    ],
)
def test_labels_that_do_not_fit_the_contract(values, message):
    with pytest.raises(ModelFileError, match=message):
        segmenter_of(fixed_output(values), kind="labels")(quadrants(32, 64))


@pytest.mark.parametrize("value", [3, -1, 300])
def test_label_beyond_the_classes(value):
    values = np.full((1, 32, 64), value, np.int32)
    with pytest.raises(BackendError, match="3 classes"):
        segmenter_of(fixed_output(values), kind="labels")(quadrants(32, 64))


def test_output_one_cell_short_is_taken():
    # What a graph gives that halves 9 rows to 4 before its stride of 4.
    segmenter = segmenter_of(fixed_output(np.zeros((1, 3, 1, 2), np.float32)), height=9, width=16, stride=8)
    assert segmenter(quadrants(9, 16)).labels.shape == (9, 16)


def test_size_that_the_stride_does_not_divide_rounds_up():
    segmenter = segmenter_of(fixed_output(np.zeros((1, 3, 9, 17), np.float32)), height=33, width=65)
    assert segmenter(quadrants(33, 65)).labels.shape == (33, 65)


def test_missing_output_lists_what_there_is():
    segmenter = Segmenter(FunctionBackend(lambda _inputs: {"other": np.zeros(1)}, metadata={}), contract_for())
    with pytest.raises(ModelFileError, match="promises the output 'out', but the model gives other"):
        segmenter(quadrants(8, 8))


def test_missing_output_is_reported_where_labels_are_carried_too():
    model = segmenter_of(lambda _inputs: {"other": np.zeros(1)})
    steps = {step.name: step.work for step in model.steps(motion=Motion(smooth=0.5))}
    frames, made = [Frame(0, quadrants(8, 8), 0.0, "f")], None
    for name in ("motion", "prepare", "infer"):
        made = steps[name](frames, made)
    with pytest.raises(ModelFileError, match="promises the output 'out', but the model gives other"):
        steps["labels"](frames, made)


def test_contract_without_a_usable_output():
    contract = contract_for()
    object.__setattr__(contract, "outputs", (OutputSpec(name="out", kind="heatmaps", stride=4),))
    with pytest.raises(ContractError, match="heatmaps, but logits or labels is needed"):
        Segmenter(FunctionBackend(strongest_channel, metadata={}), contract)


def test_frame_that_is_none():
    with pytest.raises(MediaError, match="NoneType"):
        segmenter_of(strongest_channel)(None)


def test_nan_logits_are_an_error():
    with pytest.raises(BackendError, match="NaN"):
        segmenter_of(fixed_output(np.full((1, 3, 8, 16), np.nan, np.float32)))(quadrants(32, 64))


def test_context_manager_closes_the_backend():
    closed = []

    class Closing(FunctionBackend):
        def close(self):
            closed.append(True)

    with Segmenter(Closing(strongest_channel, metadata={}), contract_for()) as segmenter:
        assert not closed
        assert segmenter.description == ("segformer b0 fast fp32, input 64x32 (width x height), python function")
        assert segmenter.contract == contract_for()
    assert closed == [True]


def test_shares_are_fractions_of_the_pixels():
    labels = np.array([[0, 0, 0], [2, 2, 0]], np.uint8)
    shares = Segmentation(labels, CLASSES, PALETTE).shares()
    assert list(shares) == list(CLASSES)
    assert shares == pytest.approx({"red": 4 / 6, "green": 0, "blue": 2 / 6})
    big = np.random.default_rng(1).integers(0, 3, size=(300, 500), dtype=np.uint8)
    assert Segmentation(big, CLASSES, PALETTE).shares()["green"] == pytest.approx((big == 1).mean())


def test_shares_follow_labels_that_are_edited():
    result = Segmentation(np.zeros((2, 4), np.uint8), CLASSES, PALETTE)
    assert result.shares()["red"] == 1
    result.labels[0] = 2
    assert result.shares() == pytest.approx({"red": 0.5, "green": 0, "blue": 0.5})


def test_classes_of_the_same_name_add_up():
    shares = Segmentation(np.array([[0, 1, 1, 2]], np.uint8), ("road", "car", "road"), PALETTE).shares()
    assert shares == pytest.approx({"road": 0.5, "car": 0.5})


def test_draw_shows_colors_and_a_legend_on_request():
    labels = quadrant_labels(360, 480).astype(np.uint8)
    result = Segmentation(labels, CLASSES, PALETTE)
    frame = np.zeros((360, 480, 3), np.uint8)
    plain = result.draw(frame, alpha=1, legend=False)
    np.testing.assert_array_equal(plain, np.array(PALETTE, np.uint8)[labels][..., ::-1])
    with_legend = result.draw(frame, alpha=1)
    changed = cv2.absdiff(plain, with_legend).max(axis=2) > 0
    assert changed[:120, :200].any()
    assert not changed[180:].any()
    assert not frame.any()


@pytest.mark.parametrize("given", ["photo.jpg", Path("photo.jpg")])
def test_a_name_in_place_of_a_frame_is_told_what_to_do(given):
    with pytest.raises(MediaError, match=r"the name 'photo\.jpg'.*read_image\('photo\.jpg'\), or .*stream"):
        segmenter_of(strongest_channel)(given)


def test_several_frames_are_taken_one_by_one():
    with pytest.raises(MediaError, match="a list of 2, expected one frame; call the model for each of them"):
        segmenter_of(strongest_channel)([np.zeros((4, 4, 3), np.uint8)] * 2)
