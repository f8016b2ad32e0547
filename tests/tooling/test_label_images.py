"""Label images are read as they are meant, or refused with words that say what to do."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sfpp.export.classes import class_set, generated_palette
from sfpp.runtime.contract import InputSpec, ModelContract, OutputSpec
from sfpp.runtime.errors import MediaError, UsageError
from sfpp.tooling.frames import NamedFrame
from sfpp.tooling.label_images import LabelFolder
from sfpp.tooling.label_rules import IGNORED, LabelRules
from sfpp.tooling.metrics import ConfusionMatrix
from sfpp.tooling.tasks import Task
from sfpp.tooling.truth import annotations_for

NAMES = tuple(f"class {index}" for index in range(150))


def write(path, values, *, dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, dtype)).save(path)


def labels_in(folder, classes, **rules):
    """Label images for a model with so many classes, or with those of a data set."""
    known = class_set(classes) if isinstance(classes, str) else None
    names, palette = (known.names, known.palette) if known else (NAMES[:classes], ())
    return LabelFolder(folder, classes=names, palette=palette, rules=LabelRules(**rules))


def read(folder, classes, name="a", **rules):
    """All label images decided on together, then one of them."""
    labels = labels_in(folder, classes, **rules)
    labels.fit([name, "a", "b", "c"])
    found = labels._values_in(labels._file_of(name))
    return labels.find(name, found.shape).tolist()


def refused(folder, classes, message, **rules):
    with pytest.raises(UsageError, match=message):
        read(folder, classes, **rules)


def test_values_are_class_numbers_and_255_does_not_count(tmp_path):
    write(tmp_path / "a.png", [[0, 1, 2], [2, 255, 0]])
    assert read(tmp_path, 3) == [[0, 1, 2], [2, IGNORED, 0]]
    assert labels_in(tmp_path, 3).find("c", (2, 3)) is None
    assert "a" in labels_in(tmp_path, 3)
    assert "c" not in labels_in(tmp_path, 3)


# Truth that does not fit


@pytest.mark.parametrize("pictures", [[[[0, 255], [255, 0]]], [[[0, 0]], [[255, 255]]]])
def test_masks_of_0_and_255_are_asked_about_whichever_picture_has_which(tmp_path, pictures):
    for name, values in zip("ab", pictures, strict=False):
        write(tmp_path / f"{name}.png", values)
    refused(tmp_path, 2, r"values 0 \(50 %\), 255 \(50 %\), but the model has 2 classes, 0 to 1; masks are often")
    refused(tmp_path, 2, "--label-map 255=1 if 255 is the class 1.*--ignore 255 if such")
    refused(tmp_path, 5, "--label-map 255=CLASS")
    refused(tmp_path, 1, "one class, 0")
    assert read(tmp_path, 2, label_map="255=1") == (np.array(pictures[0]) // 255).tolist()
    assert read(tmp_path, 2, ignore=255) == np.where(np.array(pictures[0]) == 255, IGNORED, 0).tolist()


def test_with_two_classes_and_a_border_255_does_not_count(tmp_path):
    write(tmp_path / "a.png", [[0, 1, 255]])
    assert read(tmp_path, 2) == [[0, 1, IGNORED]]


def test_numbers_from_1_are_asked_about(tmp_path):
    write(tmp_path / "a.png", [[1, 2, 3]])
    write(tmp_path / "b.png", [[4, 5, 1]])
    refused(tmp_path, 5, "--label-offset -1 if the classes are numbered from 1, or --ignore 5")
    assert read(tmp_path, 5, label_offset=-1) == [[0, 1, 2]]
    assert read(tmp_path, 5, ignore=5) == [[1, 2, 3]]
    # Also where 0 is what is none of them, as in ADE20K.
    write(tmp_path / "c.png", [[0, 1, 255]])
    refused(tmp_path, 5, "--label-offset -1")
    assert read(tmp_path, 5, "c", label_offset=-1) == [[IGNORED, 0, IGNORED]]


def test_camvids_void_is_the_number_behind_its_classes(tmp_path):
    write(tmp_path / "a.png", [[0, 10, 11]])
    assert read(tmp_path, "camvid") == [[0, 10, IGNORED]]
    refused(tmp_path, 11, "--ignore 11")


def test_other_values_are_refused_with_what_may_be_meant(tmp_path):
    write(tmp_path / "a.png", [[0, 1, 9]])
    refused(tmp_path, 3, r"9 \(33 %\).*give --label-map 9=2 if .* in this order, or --ignore 9")
    write(tmp_path / "b.png", [[0, 255]])
    refused(tmp_path, 3, "ignored is 9: give --ignore 9,255", ignore=9)
    (tmp_path / "b.png").unlink()
    assert read(tmp_path, 3, ignore=(9, 11)) == [[0, 1, IGNORED]]
    refused(tmp_path, 3, "ignored is 255: give --ignore 255,9", ignore=255)
    write(tmp_path / "b.png", [[*range(12), 99]])
    refused(tmp_path, 12, r"the values 99 \(6.2 %\), 0 \(12 %\), .* and 5 more, but")
    write(tmp_path / "b.png", [[0, 128, 255]])
    refused(tmp_path, 2, "give --ignore 9,128,255")
    write(tmp_path / "a.png", [[0, 128, 255]])
    refused(tmp_path, 3, "--label-map 128=1,255=2 if they stand for the classes in this order")
    assert read(tmp_path, 3, label_map={128: 1, 255: 2}) == [[0, 1, 2]]
    write(tmp_path / "b.png", [[0, 26001]], dtype=np.uint16)
    refused(tmp_path, 30, "numbers so large are those of instances")


def test_a_map_may_be_a_file_and_ignore(tmp_path):
    write(tmp_path / "labels" / "a.png", [[0, 7, 255]])
    (tmp_path / "map.txt").write_text("7=1\n\n255 = ignore\n")
    (tmp_path / "map.json").write_text('{"7": 1, "255": "ignore"}')
    for given in ("7=1,255=ignore", tmp_path / "map.txt", str(tmp_path / "map.json")):
        assert read(tmp_path / "labels", 2, label_map=given) == [[0, 1, IGNORED]]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"label_map": "255:x"}, "label_map holds '255:x', expected OLD=NEW such as 255=1"),
        ({"label_map": "1=0,1=1"}, "names 1 twice"),
        ({"label_map": "255=2"}, "label_map says class 2, but the model has 2 classes, 0 to 1"),
        ({"label_map": "255=1", "label_offset": -1}, "both given"),
        ({"label_offset": "1"}, "label_offset is '1', expected a whole number"),
        ({"ignore": ("255",)}, r"ignore is \('255',\), expected values"),
    ],
)
def test_rules_that_cannot_be_meant(tmp_path, rules, message):
    write(tmp_path / "a.png", [[0, 1]])
    with pytest.raises(UsageError, match=message):
        labels_in(tmp_path, 2, **rules)


def confusion(true, predicted, classes=5):
    matrix = ConfusionMatrix(classes)
    matrix.update(np.array(predicted), np.array(true))
    return matrix


def test_numbers_off_by_one_are_seen_in_predictions(tmp_path):
    write(tmp_path / "a.png", [[1, 2, 3]])
    labels = labels_in(tmp_path, 5)
    labels.find("a", (1, 3))
    with pytest.raises(UsageError, match=r"3 of the 3 classes in .* number is -1, and 0 as .* --label-offset -1 if"):
        labels.check_numbering(confusion([1, 2, 3], [0, 1, 2]))
    with pytest.raises(UsageError, match=r"number is \+1.*--label-offset 1 if"):
        labels.check_numbering(confusion([0, 1, 2], [1, 2, 3]))
    labels.check_numbering(confusion([0, 1, 2], [0, 1, 2]))
    labels.check_numbering(confusion([0, 1], [1, 2]))  # by chance
    labels.check_numbering(confusion([1, 2, 3, 4, 5, 6], [0, 1, 2, 4, 5, 6], classes=7))  # weak, and not off by one
    asked = labels_in(tmp_path, 5, label_offset=0)
    asked.find("a", (1, 3))
    asked.check_numbering(confusion([1, 2, 3], [0, 1, 2]))


# What is reported


def test_what_is_ignored_and_never_occurs_is_counted_over_the_frames_that_are_used(tmp_path):
    write(tmp_path / "a.png", [[0, 0, 255, 2]])
    write(tmp_path / "b.png", [[1, 1, 255, 255]])
    write(tmp_path / "c.png", [[3, 3, 3, 3]])
    labels = labels_in(tmp_path, 5)
    labels.fit(["a", "b", "c", "nowhere"])
    found = labels.summary(["a", "b"])
    assert (found.frames, found.ignored, found.absent) == (2, 3 / 8, ("class 3", "class 4"))
    assert found.text() == "37.50 % of the pixels ignored; classes that never occur: class 3, class 4"
    assert found.notes == ("255 is no class and is ignored",)
    assert found.warnings == ()
    assert labels.summary(["nowhere"]) is None


def test_truth_that_tells_little_is_warned_of(tmp_path):
    write(tmp_path / "a.png", [[0] * 3 + [255] * 97, [1] * 1 + [255] * 99])
    write(tmp_path / "b.png", [[1, 1]])
    write(tmp_path / "c.png", [[1, 2, 3]])
    labels = labels_in(tmp_path, 5)
    labels.fit(["a", "b", "c"])
    assert "98.0% of the label images' pixels are ignored" in labels.summary(["a"]).warnings[0]
    assert labels.summary(["b"]).warnings == (
        "only one class occurs in the label images, class 1: they tell little of how good a model is",
    )
    assert "the value 0 (class 0) never occurs in the label images" in labels.summary(["c"]).warnings[0]
    asked = labels_in(tmp_path, 5, label_offset=0)
    asked.fit(["c"])
    assert asked.summary(["c"]).warnings == ()


# Kinds of pictures


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.bool_])
def test_numbers_of_any_type(tmp_path, dtype):
    values = np.array([[0, 1], [1, 0]], dtype)
    Image.fromarray(values).save(tmp_path / ("a.tif" if dtype is np.int32 else "a.png"))
    assert read(tmp_path, 2) == [[0, 1], [1, 0]]


def test_65535_is_the_255_of_16_bits(tmp_path):
    write(tmp_path / "a.png", [[0, 1, 65535]], dtype=np.uint16)
    assert read(tmp_path, 2) == [[0, 1, IGNORED]]
    write(tmp_path / "a.png", [[0, 65535]], dtype=np.uint16)
    refused(tmp_path, 2, "--label-map 65535=1")


def test_three_equal_channels_are_numbers_and_colors_are_the_models(tmp_path):
    write(tmp_path / "a.png", [[[1, 1, 1], [2, 2, 2]]])
    assert read(tmp_path, "voc") == [[1, 2]]
    # aeroplane, background, the white between objects
    write(tmp_path / "b.png", [[[128, 0, 0], [0, 0, 0], [224, 224, 192]]])
    write(tmp_path / "a.png", [[[0, 0, 0], [0, 0, 0]]])
    assert read(tmp_path, "voc", "b") == [[1, 0, IGNORED]]
    assert read(tmp_path, "voc", "a") == [[0, 0]]
    labels = labels_in(tmp_path, "voc")
    labels.fit(["a", "b"])
    assert "colored, and read by the colors of the model's classes" in labels.summary(["a"]).notes[0]


def test_colors_of_no_class_are_named(tmp_path):
    write(tmp_path / "a.png", [[[128, 0, 0], [1, 2, 3], [1, 2, 3], [0, 0, 9]]])
    refused(
        tmp_path, "voc", r"no class of 2 of their 3 colors: #010203 \(50 %\), #000009 .*--label-map '#010203=0,...'"
    )
    assert read(tmp_path, "voc", label_map="#010203=5,#000009=ignore") == [[1, 5, 5, IGNORED]]


def test_camvids_own_colors(tmp_path):
    # sky, lane markings, a van, a traffic light, void
    values = [[[128, 128, 128], [128, 0, 192], [64, 128, 192], [0, 64, 64], [0, 0, 0]]]
    write(tmp_path / "0001TP_006690_L.png", values)
    write(tmp_path / "0001TP_006720_L.png", values)
    labels = labels_in(tmp_path, "camvid")
    labels.fit(["0001TP_006690", "0001TP_006720"])
    assert labels.find("0001TP_006690", (1, 5)).tolist() == [[0, 3, 8, 6, IGNORED]]
    assert labels.summary(["0001TP_006690"]).notes == (
        "label images are called as their frames with _L behind",
        "the label images are colored, and read by the colors of CamVid's 32 classes",
    )


def test_a_palette_in_another_order_than_the_models_is_read_by_its_colors(tmp_path):
    palette = class_set("voc").palette
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    picture.putpalette([channel for index in (15, 0, 7) for channel in palette[index]])
    picture.save(tmp_path / "a.png")
    assert read(tmp_path, "voc") == [[15, 0, 7]]
    assert read(tmp_path, "voc", label_offset=0) == [[0, 1, 2]]
    assert read(tmp_path, 21) == [[0, 1, 2]]


def test_label_pictures_have_the_size_of_their_frame(tmp_path):
    write(tmp_path / "a.png", [[0, 1, 2], [2, 1, 0]])
    with pytest.raises(MediaError, match=r"a\.png has 3x2 pixels \(width x height\), but its frame has 6x4"):
        labels_in(tmp_path, 12).find("a", (4, 6))


def test_a_broken_picture_is_told_where_it_is_used_and_not_before(tmp_path):
    write(tmp_path / "a.png", [[0, 1]])
    (tmp_path / "broken.png").write_bytes(b"no picture")
    write(tmp_path / "floats.tif", [[0.5, 1]], dtype=np.float32)
    labels = labels_in(tmp_path, 3)
    labels.fit(["a", "broken", "floats"])
    assert labels.find("a", (1, 2)).tolist() == [[0, 1]]
    with pytest.raises(MediaError, match="is not an image"):
        labels.find("broken", (1, 2))
    with pytest.raises(MediaError, match="has float32 values"):
        labels.find("floats", (1, 2))


def test_a_folder_without_label_pictures_is_refused(tmp_path):
    with pytest.raises(MediaError, match="holds no label images"):
        labels_in(tmp_path, 3)
    with pytest.raises(MediaError, match="is not a folder"):
        labels_in(tmp_path / "nowhere", 3)


# Data sets as they are downloaded


def cityscapes(folder, kind, values, name="aachen_000000_000019", **options):
    write(folder / name.split("_")[0] / f"{name}_gtFine_{kind}.png", values, **options)


def test_cityscapes_train_ids_come_before_all_else(tmp_path):
    cityscapes(tmp_path, "labelTrainIds", [[0, 18, 255]])
    cityscapes(tmp_path, "labelIds", [[7, 33, 3]])
    cityscapes(tmp_path, "instanceIds", [[7, 33001, 3]], dtype=np.uint16)
    cityscapes(tmp_path, "color", [[[128, 64, 128], [119, 11, 32], [0, 0, 0]]])
    labels = labels_in(tmp_path, "cityscapes")
    frame = "aachen_000000_000019_leftImg8bit"
    labels.fit([frame])
    assert labels.find(frame, (1, 3)).tolist() == [[0, 18, IGNORED]]
    assert labels.summary([frame]).notes[0] == "the label images are Cityscapes' labelTrainIds"


def test_cityscapes_label_ids_become_train_ids(tmp_path):
    ids = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    others = sorted(set(range(34)) - set(ids))
    cityscapes(tmp_path, "labelIds", [ids + others])
    for classes in ("cityscapes", 19):
        labels = labels_in(tmp_path, classes)
        found = labels.find("aachen/aachen_000000_000019_leftImg8bit", (1, 34)).tolist()
        assert found == [[*range(19), *[IGNORED] * 15]]
    assert any("read as the 19 classes" in note for note in labels.summary(["aachen_000000_000019"]).notes)
    # As another model's own numbers.
    assert labels_in(tmp_path, 34).find("aachen_000000_000019", (1, 34)).tolist() == [ids + others]
    # Under other names they are asked about.
    write(tmp_path / "other" / "a.png", [ids + others])
    refused(tmp_path / "other", 19, "--label-map cityscapes if they are Cityscapes' labelIds")
    assert read(tmp_path / "other", 19, label_map="cityscapes") == [[*range(19), *[IGNORED] * 15]]


def test_cityscapes_instances_alone_are_refused(tmp_path):
    cityscapes(tmp_path, "instanceIds", [[7, 33001, 3]], dtype=np.uint16)
    with pytest.raises(MediaError, match="numbers of instances only; give its labelTrainIds or labelIds"):
        labels_in(tmp_path, 19)


def test_ade20k_is_numbered_from_1(tmp_path):
    write(tmp_path / "ADE_val_00000001.png", [[0, 1, 7]])
    labels = labels_in(tmp_path, 150)
    assert labels.find("ADE_val_00000001", (1, 3)).tolist() == [[IGNORED, 0, 6]]
    assert any("numbered from 1" in note for note in labels.summary(["ADE_val_00000001"]).notes)
    assert labels_in(tmp_path, 150, label_offset=0).find("ADE_val_00000001", (1, 3)).tolist() == [[0, 1, 7]]
    assert labels_in(tmp_path, 149).find("ADE_val_00000001", (1, 3)).tolist() == [[0, 1, 7]]
    # Where the numbers were counted from 0 before, what is none of the classes is 255.
    write(tmp_path / "ADE_val_00000001.png", [[255, 0, 6]])
    assert labels_in(tmp_path, 150).find("ADE_val_00000001", (1, 3)).tolist() == [[IGNORED, 0, 6]]


def test_pascal_voc(tmp_path):
    picture = Image.fromarray(np.array([[0, 15, 255]], np.uint8))
    picture.putpalette([channel for color in class_set("voc").palette for channel in color])
    (tmp_path / "SegmentationClass").mkdir()
    picture.save(tmp_path / "SegmentationClass" / "2007_000032.png")
    labels = labels_in(tmp_path / "SegmentationClass", "voc")
    assert labels.find("2007_000032", (1, 3)).tolist() == [[0, 15, IGNORED]]
    assert labels.summary(["2007_000032"]).notes[0] == "the label images are Pascal VOC's"
    write(tmp_path / "SegmentationObject" / "2007_000032.png", [[0, 1, 255]])
    with pytest.raises(MediaError, match="numbers of objects, not classes; give SegmentationClass"):
        labels_in(tmp_path / "SegmentationObject", "voc")


def test_one_name_in_several_folders_is_told_apart_by_the_folders(tmp_path):
    write(tmp_path / "left" / "0001.png", [[0]])
    write(tmp_path / "right" / "0001.png", [[1]])
    labels = labels_in(tmp_path, 2)
    assert labels.find("left/0001", (1, 1)).tolist() == [[0]]
    assert labels.find("right/0001", (1, 1)).tolist() == [[1]]
    with pytest.raises(MediaError, match="may both belong to the frame 0001"):
        labels.find("0001", (1, 1))


# Palettes


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
    found = LabelFolder(tmp_path, classes=NAMES[:19]).find("frame", (5, 7))
    np.testing.assert_array_equal(found, indices)


def test_a_damaged_one_is_an_error_and_not_labels(tmp_path):
    whole = palette_png(np.zeros((50, 50), np.uint8))
    for length in (30, 40, 60, len(whole) - 20):
        (tmp_path / "frame.png").write_bytes(whole[:length])
        with pytest.raises(MediaError, match="is not an image that Pillow can decode"):
            labels_in(tmp_path, 3).find("frame", (50, 50))


# The figures that follow


def accuracy(folder, predictions, *, classes=2, **rules):
    """What calibrating says of predictions, by the frames' names."""
    contract = ModelContract(
        task="segmentation",
        family="segformer",
        size="b0",
        variant="original",
        input=InputSpec(name="frame", height=32, width=32),
        outputs=(OutputSpec("labels", "labels", 1),),
        classes=NAMES[:classes],
        palette=generated_palette(classes),
    )
    annotations = annotations_for(contract, labels=folder, rules=LabelRules(**rules))
    annotations.labels.fit(list(predictions))
    tally = Task(contract, annotations).tally()
    for name, labels in predictions.items():
        found = np.array(labels, np.uint8)
        tally.add(NamedFrame(name, np.zeros((*found.shape, 3), np.uint8)), found, found)
    return tally.accuracy()


def test_the_mean_iou_of_masks_is_that_of_both_classes(tmp_path):
    write(tmp_path / "a.png", [[0, 0, 255, 255]])
    write(tmp_path / "b.png", [[255, 255, 255, 255]])
    predictions = {"a": [[0, 1, 1, 0]], "b": [[0, 0, 1, 1]]}
    # Class 0: 1 of 2 + 4 - 1 pixels; class 1: 3 of 6 + 4 - 3.
    found = accuracy(tmp_path, predictions, label_map="255=1")
    assert found.mean_iou == pytest.approx((1 / 5 + 3 / 7) / 2)
    assert found.iou_by_class == pytest.approx({"class 0": 1 / 5, "class 1": 3 / 7})


def test_the_mean_iou_of_numbers_from_1_leaves_0_out(tmp_path):
    write(tmp_path / "a.png", [[0, 1, 1, 2, 2, 3]])
    predictions = {"a": [[2, 0, 1, 1, 1, 2]]}
    # Class 0: 1 of 2; class 1: 2 of 3; class 2: 1 of 1, for the first pixel does not count.
    assert accuracy(tmp_path, predictions, classes=3, label_offset=-1).mean_iou == pytest.approx(
        (1 / 2 + 2 / 3 + 1) / 3
    )
    with pytest.raises(UsageError, match="--label-offset -1"):
        accuracy(tmp_path, predictions, classes=3)
    # Where the last class never occurs, nothing but the predictions shows it.
    with pytest.raises(UsageError, match=r"number is -1, .*--label-offset -1 if"):
        accuracy(tmp_path, {"a": [[2, 0, 0, 1, 1, 2]]}, classes=4)


def test_rules_without_label_images_or_for_people_are_refused(tmp_path):
    with pytest.raises(UsageError, match="label_map is given, but there are no label images; give them with --labels"):
        accuracy(None, {}, label_map="255=1")
