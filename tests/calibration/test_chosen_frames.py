"""Which frames are chosen, and that they can be gone through again."""

import numpy as np
import pytest

from sfpp.calibration import chosen_frames as choosing
from sfpp.calibration.settings import CalibrationSettings
from sfpp.runtime.demo import demo_clip
from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.pixels.pictures import read_image, write_image


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(12):
        write_image(folder / f"{index}.png", rng.integers(0, 256, (8, 12, 3), np.uint8))
    return folder


def chosen_frames(source, *, annotated=None, only_annotated=False, **options):
    settings = CalibrationSettings("model.onnx", source, **{"select": "random", **options})
    return choosing.chosen_frames(settings, annotated=annotated, only_annotated=only_annotated)


def names_of(source, **options):
    with chosen_frames(str(source), **options) as chosen:
        return chosen.calibration.names, chosen.held_out.names


def test_the_choice_is_seeded_and_holds_other_frames_out(pictures):
    first = names_of(pictures, frames=5, held_out=3, seed=4)
    assert first == names_of(pictures, frames=5, held_out=3, seed=4)
    assert first != names_of(pictures, frames=5, held_out=3, seed=5)
    calibration, held_out = map(set, first)
    assert len(calibration) == 5
    assert len(held_out) == 3
    assert not calibration & held_out


def test_frames_are_those_of_the_files_and_can_be_read_twice(pictures):
    with chosen_frames(str(pictures), frames=4, held_out=2) as chosen:
        for frames in (chosen.calibration, chosen.held_out, chosen.calibration):
            for frame in frames:
                np.testing.assert_array_equal(frame.image_bgr, read_image(pictures / f"{frame.name}.png"))
        assert chosen.calibration.first(3).names == chosen.calibration.names[:3]
        assert not chosen.warnings


def test_the_hash_follows_the_pixels_and_not_the_names(pictures, tmp_path):
    def digest():
        with chosen_frames(str(pictures), frames=12, held_out=1) as chosen:
            return chosen.calibration.sha256

    first = digest()
    for file in pictures.iterdir():
        file.rename(file.with_name(f"moved_{file.name}"))
    assert digest() == first
    for file in pictures.iterdir():
        image = read_image(file)
        image[0, 0, 0] ^= 1
        write_image(file, image)
    assert digest() != first


def test_with_few_frames_a_third_is_held_out(pictures):
    with chosen_frames(str(pictures), frames=64, held_out=32) as chosen:
        assert (len(chosen.calibration), len(chosen.held_out)) == (8, 4)
        assert not chosen.overlapping
        assert "gave 8 frames to calibrate with, 64 were asked for" in chosen.warnings[0]


def test_a_single_frame_serves_for_both_with_a_warning(pictures):
    with chosen_frames(str(pictures / "3.png")) as chosen:
        assert chosen.calibration.names == chosen.held_out.names == ("3",)
        assert chosen.overlapping
        assert "evaluated on those that they were calibrated with" in chosen.warnings[-1]


def test_validation_frames_are_those_with_annotations(pictures):
    _, held_out = names_of(pictures, frames=4, held_out=3, annotated={"2", "7", "nowhere"})
    assert set(held_out) == {"2", "7"}
    with pytest.raises(MediaError, match="no frame to evaluate on has annotations"):
        names_of(pictures, annotated={"nowhere"})


def test_calibration_too_can_be_kept_to_annotated_frames(pictures):
    names = {"2", "5", "7", "8"}
    for select in ("random", "diverse"):
        calibration, held_out = names_of(pictures, annotated=names, only_annotated=True, select=select)
        assert set(calibration) | set(held_out) == names
        assert not set(calibration) & set(held_out)


def test_validation_frames_may_come_from_elsewhere(pictures, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for index in range(5):
        write_image(other / f"x{index}.png", np.full((4, 4, 3), index, np.uint8))
    calibration, held_out = names_of(pictures, frames=12, held_out=4, validation=str(other))
    assert len(calibration) == 12
    assert len(held_out) == 4
    assert set(held_out) < {f"x{index}" for index in range(5)}
    with chosen_frames(str(pictures), frames=12, held_out=4, validation=str(other)) as chosen:
        assert not chosen.overlapping


def test_a_diverse_choice_spreads_over_what_there_is(tmp_path):
    """Forty nearly black frames, and one of each color: the colors are all chosen, at random most are not."""
    rng = np.random.default_rng(1)
    colors = {"r": (0, 0, 255), "g": (0, 255, 0), "b": (255, 0, 0), "w": (255, 255, 255)}
    for index in range(40):
        write_image(tmp_path / f"{index:02}.png", rng.integers(0, 9, (16, 16, 3), np.uint8))
    for name, color in colors.items():
        write_image(tmp_path / f"{name}.png", np.full((16, 16, 3), color, np.uint8))
    diverse, held_out = names_of(tmp_path, frames=5, held_out=1, select="diverse")
    assert len(diverse) == 5
    assert set(colors) - set(held_out) <= set(diverse)
    assert not set(colors) <= set(names_of(tmp_path, frames=5, held_out=1)[0])


def test_a_list_names_pictures_relative_to_itself(pictures):
    text = pictures.parent / "list.txt"
    text.write_text("# three of them\nimages/1.png\n\nimages/5.png\nimages/4.png\nimages/3.png\n")
    calibration, held_out = names_of(text, frames=9)
    assert set(calibration) | set(held_out) == {"1", "3", "4", "5"}
    text.write_text("images/1.png\r\nimages/5.png\r\n", encoding="utf-8-sig")  # as Windows' editors write it
    assert {name for names in names_of(text, frames=9) for name in names} == {"1", "5"}
    text.write_text("images/99.png\n")
    with pytest.raises(MediaError, match=r"99[.]png, which does not exist"):
        names_of(text)
    text.write_text("\n")
    with pytest.raises(MediaError, match="names no picture"):
        names_of(text)


def test_frames_of_a_video_can_be_read_twice():
    with chosen_frames(str(demo_clip()), frames=4, held_out=2, seed=3) as chosen:
        once, again = ([frame.image_bgr for frame in chosen.calibration] for _ in range(2))
        np.testing.assert_array_equal(once, again)
        assert once[0].shape == (540, 960, 3)
        assert len({image.tobytes() for image in once}) == 4


def test_pictures_that_cannot_be_read_are_left_out_and_told(pictures):
    for index in range(1, 12):
        (pictures / f"{index}.png").write_bytes(b"no picture")
    with pytest.raises(MediaError, match="can be read"):
        names_of(pictures, seed=1)
    for index in range(1, 12, 3):
        write_image(pictures / f"{index}.png", np.zeros((4, 4, 3), np.uint8))
    with chosen_frames(str(pictures), frames=64) as chosen:
        assert any("cannot be read and were left out" in line for line in chosen.warnings)


def test_frames_that_are_evaluated_on_and_calibrated_with_are_reported_whatever_the_source(pictures, tmp_path):
    with chosen_frames(str(pictures), frames=12, validation=str(pictures)) as chosen:
        assert chosen.overlapping
        assert chosen.warnings == (f"{pictures} has frames that are calibrated with too; evaluate on others",)


def test_frames_of_one_name_are_told(pictures):
    write_image(pictures / "3.jpg", np.zeros((8, 12, 3), np.uint8))
    with chosen_frames(str(pictures), frames=2) as chosen:
        (warning,) = chosen.warnings
        assert "has several frames called 3 (1 such names): labels belong to all frames of a name" in warning


def test_a_diverse_choice_tells_of_what_it_could_not_read(pictures):
    for index in range(3):
        (pictures / f"{index}.png").write_bytes(b"no picture")
    with chosen_frames(str(pictures), frames=2, held_out=1, select="diverse") as chosen:
        assert len(chosen.calibration) == 2
        assert chosen.warnings == ("3 of the frames cannot be read and were left out",)


def test_numbers_that_cannot_be_meant_are_refused(pictures):
    with pytest.raises(UsageError, match="expected at least 1 of each"):
        names_of(pictures, frames=0)
    with pytest.raises(UsageError, match="select is 'best', expected one of random, diverse"):
        names_of(pictures, select="best")
