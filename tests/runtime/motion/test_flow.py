import cv2
import numpy as np
import pytest

from sfpp.runtime.contract import InputSpec
from sfpp.runtime.images import place_frame
from sfpp.runtime.motion.flow import WIDEST, Cuts, Flow, Path, Step, cells
from tests.runtime.motion.moving import pan, scene, window

INNER = (slice(6, -6), slice(6, -6))


def way(flow, one, other, *, forth=False):
    """From one frame to the other, once the flow has got used to the motion."""
    pictures = flow.picture(one), flow.picture(other)
    for _ in range(3):
        step = flow.both(*reversed(pictures))[1] if forth else flow.back(*pictures)
    return step


@pytest.mark.parametrize("velocity", [(0.0, 4.0), (0.0, -4.0), (4.0, 0.0), (-4.0, 4.0)])
@pytest.mark.parametrize("forth", [False, True])
def test_what_is_at_a_cell_was_at_the_cell_plus_its_offset(velocity, forth):
    """A camera that goes right sees things go left: in the frame before they were further right."""
    before, now = pan(2, velocity=velocity, size_hw=(192, 256))
    flow = Flow((48, 64), (192, 256))
    step = way(flow, before, now, forth=True) if forth else way(flow, now, before)
    down, across = (side / 4 * (-1 if forth else 1) for side in velocity)
    found = step.offset[INNER].reshape(-1, 2)
    np.testing.assert_allclose(np.median(found, axis=0), [across, down], atol=0.06)
    assert np.median(step.belief[INNER]) > 0.9
    assert not step.is_cut


@pytest.mark.parametrize(
    ("resize", "frame_hw"),
    [
        ("letterbox", (96, 256)),
        ("letterbox", (192, 96)),
        ("pad", (96, 256)),
        ("stretch", (96, 200)),
        ("stretch", (193, 257)),
    ],
)
@pytest.mark.parametrize("align_corners", [False, True])
def test_ways_lie_where_the_frame_lies_in_the_input(resize, frame_hw, align_corners):
    """Only the frame's right half moves: those cells, and no others, have an offset, and of the right size."""
    spec = InputSpec("frame", 192, 256, resize=resize)
    columns = frame_hw[1]
    left, right = scene(1), scene(2)
    frames = []
    for shift in (0, 4):
        frame = window(left, 40, 40, frame_hw)
        frame[:, columns // 2 :] = window(right, 40, 40 + shift, frame_hw)[:, columns // 2 :]
        frames.append(frame)
    placement = place_frame(frame_hw, spec)
    region = placement.region((48, 64), model_size_hw=(192, 256), align_corners=align_corners)
    step = way(Flow((48, 64), frame_hw, region, align_corners=align_corners), frames[1], frames[0])
    middle = (placement.left + placement.width / 2) / 4
    across = cells((48, 64))[..., 0]
    down = cells((48, 64))[..., 1]
    inside = (down > placement.top / 4 + 3) & (down < (placement.top + placement.height) / 4 - 4)
    moves = inside & (across > middle + 4) & (across < (placement.left + placement.width) / 4 - 5)
    rests = inside & (across < middle - 4) & (across > placement.left / 4 + 3)
    expected = 4 * placement.scale_yx[1] / 4
    assert np.median(step.offset[..., 0][moves]) == pytest.approx(expected, rel=0.06)
    assert np.abs(np.median(step.offset[..., 0][rests])) < 0.05


@pytest.mark.parametrize("resize", ["letterbox", "pad", "stretch"])
@pytest.mark.parametrize("frame_hw", [(96, 256), (192, 90), (193, 257), (768, 1024)])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("widest", [WIDEST, 60])
def test_each_cell_sees_its_own_part_of_the_frame(resize, frame_hw, align_corners, widest):
    """The gray level tells the place: each cell has that of the place whose label is looked up in it."""
    spec = InputSpec("frame", 190, 254, resize=resize)
    placement = place_frame(frame_hw, spec)
    top, left, height, width = placement.region((48, 64), model_size_hw=(190, 254), align_corners=align_corners)
    less = int(align_corners)
    for axis, start, extent in ((0, top, height), (1, left, width)):
        side = frame_hw[axis]
        ramp = np.linspace(0, 255, side)
        frame = np.repeat(np.expand_dims(ramp, 1 - axis), frame_hw[1 - axis], axis=1 - axis)
        frame = np.repeat(frame[..., np.newaxis], 3, axis=2).round().astype(np.uint8)
        flow = Flow((48, 64), frame_hw, (top, left, height, width), align_corners=align_corners, widest=widest)
        levels = np.median(flow._on_grid(flow.picture(frame).astype(np.float32)), axis=1 - axis)
        # As labels_from_logits places the pixels among the cells, turned around.
        cell = np.arange(len(levels))
        pixel = (cell - start) * (side - 1) / extent if less else (cell + 0.5 - start) * side / extent - 0.5
        inside = (pixel > side / 20) & (pixel < side * 0.95)
        expected = np.interp(pixel[inside], np.arange(side), ramp)
        # Levels are whole, and every second pixel stands for two.
        np.testing.assert_allclose(levels[inside], expected, atol=0.5 + 127.5 / side + 0.2 * 255 / extent)


def test_two_scenes_are_a_cut_and_the_next_flow_begins_anew():
    flow = Flow((48, 64), (192, 256))
    one, other = (flow.picture(window(scene(seed), 50, 50, (192, 256))) for seed in (1, 2))
    assert flow.back(one, other).is_cut
    alike = flow.back(one, one)
    assert not alike.is_cut
    assert np.abs(alike.offset).max() < 0.05
    np.testing.assert_allclose(alike.belief, 1, atol=1e-3)


def test_a_cut_in_a_good_part_of_the_picture_is_one():
    """As between slides of one layout, or in a film with black bars."""
    before, now = pan(2, seed=1, size_hw=(192, 256))
    other = window(scene(2), 50, 50, (192, 256)) // 3
    flow = Flow((48, 64), (192, 256))
    for share, is_cut in ((0.1, False), (0.5, True)):
        changed, columns = now.copy(), round(share * 256)
        changed[:, :columns] = other[:, :columns]
        assert flow.back(flow.picture(changed), flow.picture(before)).is_cut == is_cut


def test_cuts_are_told_from_motion():
    frames = [*pan(5, seed=1, size_hw=(180, 320)), *pan(5, seed=2, size_hw=(180, 320)), *pan(2, size_hw=(90, 160))]
    cuts = Cuts()
    assert [index for index, frame in enumerate(frames) if cuts.begins(frame)] == [0, 5, 10]


@pytest.mark.parametrize(
    "frame_hw", [(1, 1), (5, 300), (300, 5), (2160, 3840), (17, 33), (16, 128), (40, 2000), (2000, 40), (2500, 1)]
)
@pytest.mark.parametrize("cells_hw", [(1, 1), (24, 32), (7, 3)])
def test_frames_and_grids_of_every_size(frame_hw, cells_hw):
    flow = Flow(cells_hw, frame_hw)
    frame = np.resize(scene(3), (*frame_hw, 3))
    step = flow.back(flow.picture(frame), flow.picture(frame))
    assert step.offset.shape == (*cells_hw, 2)
    assert step.belief.shape == cells_hw
    assert np.isfinite(step.offset).all()
    assert not step.is_cut


def slow_bilinear(values, x, y, *, outside=None):
    """A value between four cells; beyond the border that of the border, or ``outside``."""
    rows, columns = values.shape[:2]
    total = 0.0
    for row, weight_y in ((int(np.floor(y)), 1 - (y - np.floor(y))), (int(np.floor(y)) + 1, y - np.floor(y))):
        for column, weight_x in ((int(np.floor(x)), 1 - (x - np.floor(x))), (int(np.floor(x)) + 1, x - np.floor(x))):
            there = 0 <= row < rows and 0 <= column < columns
            value = values[min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)]
            total = total + weight_y * weight_x * (value if there or outside is None else outside)
    return total


def test_a_path_is_as_one_step_after_the_other():
    rng = np.random.default_rng(0)
    shape = (9, 12)
    steps = [Step(offset_of(rng, shape), rng.uniform(0, 1, shape).astype(np.float32)) for _ in range(3)]
    path = Path(shape)
    for step in steps:
        path.extend(step)
    offset, belief = np.zeros((*shape, 2)), np.ones(shape)
    for step in steps:  # what is summed so far is looked up where the step leads
        places = [(y, x, (x + step.offset[y, x, 0], y + step.offset[y, x, 1])) for y, x in np.ndindex(shape)]
        offset = np.array([step.offset[y, x] + slow_bilinear(offset, *at) for y, x, at in places]).reshape(*shape, 2)
        belief = np.array([step.belief[y, x] * slow_bilinear(belief, *at, outside=0.0) for y, x, at in places])
        belief = belief.reshape(shape)
    # OpenCV rounds places to 1/32 of a cell.
    np.testing.assert_allclose(path.offset, offset, atol=0.1)
    np.testing.assert_allclose(path.belief, belief, atol=0.06)


def offset_of(rng, shape):
    smooth = cv2.resize(rng.normal(size=(3, 4, 2)).astype(np.float32), shape[::-1], interpolation=cv2.INTER_LINEAR)
    return smooth * 1.5
