"""How a checkpoint's own library prepares images: what is read from where, what overrules it, what is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfpp.export.checkpoints.preparation import IMAGENET, Preparation
from sfpp.export.checkpoints.storage import StoredWeights
from sfpp.export.checkpoints.stored_preparation import read_preparation
from sfpp.export.contracts import input_spec
from sfpp.export.settings import ExportSettings, PreparationOptions, Resolution
from sfpp.runtime.errors import CheckpointError, UsageError

HALF, EIGHTH = (127.5, 127.5, 127.5), (31.875, 31.875, 31.875)
# What Transformers 4 and 5 write for a folder that was trained at another size than theirs, but for names.
PROCESSOR = {
    "do_normalize": True,
    "do_reduce_labels": False,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.4, 0.2],
    "image_processor_type": "SegformerImageProcessor",
    "image_std": [0.5, 0.5, 0.25],
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 384, "width": 640},
}
# The parts of MMSegmentation's dumps that matter, as it writes them.
NEW = """
crop_size = (512, 512)
data_preprocessor = dict(
    bgr_to_rgb=False,
    mean=[103.53, 116.28, 123.675],
    pad_val=0,
    seg_pad_val=255,
    size=(512, 512),
    std=[57.375, 57.12, 58.395],
    test_cfg=dict(size_divisor=32),
    type='SegDataPreProcessor')
model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='x.pth', type='Pretrained'),
        sr_ratios=[8, 4, 2, 1],
        type='MixVisionTransformer'),
    data_preprocessor=dict(
        bgr_to_rgb=False,
        mean=[103.53, 116.28, 123.675],
        std=[57.375, 57.12, 58.395],
        test_cfg=dict(size_divisor=32),
        type='SegDataPreProcessor'),
    decode_head=dict(align_corners=True, num_classes=19, type='SegformerHead'),
    test_cfg=dict(mode='whole'),
    train_cfg=dict(),
    type='EncoderDecoder')
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(keep_ratio=True, scale=(2048, 1024), type='Resize'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs')]
"""
OLD = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder', pretrained=None,
    decode_head=dict(type='SegformerHead', num_classes=150, norm_cfg=norm_cfg, align_corners=False),
    test_cfg=dict(mode='whole'))
img_norm_cfg = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=False)
data = dict(
    samples_per_gpu=2,
    test=dict(pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='MultiScaleFlipAug', img_scale=(512, 2048), flip=False, transforms=[
            dict(type='AlignedResize', keep_ratio=True, size_divisor=32),
            dict(type='RandomFlip'),
            dict(type='Normalize', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
            dict(type='ImageToTensor', keys=['img']),
            dict(type='Collect', keys=['img'])])]))
"""


def stored(metadata=None, folder=Path("nowhere")):
    return StoredWeights(folder, folder, {}, metadata or {}, "")


def configured(text, *, channels=3, key="cfg"):
    return read_preparation(stored({key: text}), "mmseg", channels=channels)


def processed(folder, channels=3, **said):
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return read_preparation(stored(folder=folder), "transformers", channels=channels)


def usable(preparation, *, channels=3, **options):
    res = options.pop("res", None)
    return preparation.overruled(PreparationOptions(**options), channels=channels, res=res, name="weights")


def test_nothing_says_anything(tmp_path):
    for found in (read_preparation(stored(), "mmseg"), read_preparation(stored(folder=tmp_path), "transformers")):
        assert found == Preparation()
        assert (found.mean, found.std, found.color_order) == (IMAGENET.mean, IMAGENET.std, "RGB")
        assert found.words(resize="letterbox", size=Resolution(1920, 1080)) == (
            "ImageNet's mean and std, RGB: the checkpoint says nothing; --mean --std --color-order say otherwise"
        )


@pytest.mark.parametrize("written", ["preprocessor_config.json", "processor_config.json"])
def test_a_transformers_folder(tmp_path, written):
    content = PROCESSOR if written.startswith("pre") else {"image_processor": PROCESSOR, "processor_class": "X"}
    (tmp_path / written).write_text(json.dumps(content))
    found = read_preparation(stored(folder=tmp_path), "transformers")
    assert (found.mean, found.std, found.color_order) == ((127.5, 102.0, 51.0), (127.5, 127.5, 63.75), "RGB")
    assert (found.resize, found.size, found.interpolation) == ("stretch", (640, 384), "antialias")
    assert (found.align_corners, found.size_divisor, found.notes, found.unclear) == (False, 1, (), {})
    assert found.words(resize="stretch", size=Resolution(640, 384)) == (
        "prepared as in training: mean 127.5 102 51, std 127.5 127.5 63.75, RGB, resize stretch 640x384, interpolation "
        f"antialias ({written})"
    )


def test_what_the_library_itself_writes(tmp_path):
    transformers = pytest.importorskip("transformers", reason="the Transformers library is not installed")
    kind = getattr(transformers, "SegformerImageProcessorPil", transformers.SegformerImageProcessor)
    kind(image_mean=[0.5, 0.4, 0.2], size={"height": 96, "width": 128}).save_pretrained(tmp_path)
    found = read_preparation(stored(folder=tmp_path), "transformers")
    assert (found.mean, found.std) == ((127.5, 102.0, 51.0), IMAGENET.std)
    assert (found.resize, found.size, found.interpolation) == ("stretch", (128, 96), "antialias")


def test_of_two_files_the_newer_counts_as_in_the_library(tmp_path):
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": PROCESSOR}))
    found = processed(tmp_path, **{**PROCESSOR, "image_mean": [0.1, 0.1, 0.1]})
    assert found.mean == (127.5, 102.0, 51.0)
    assert found.said["mean"] == "processor_config.json"
    assert found.notes == (
        "processor_config.json and preprocessor_config.json differ in image_mean: the first counts, as in Transformers "
        "5",
    )
    assert processed(tmp_path, **PROCESSOR).notes == ()
    # Of other kinds of processors, what they say of images is in the other file.
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "X"}))
    assert processed(tmp_path, **PROCESSOR).said["mean"] == "preprocessor_config.json"


def test_what_a_processor_does_not_say_is_segformers_default(tmp_path):
    found = processed(tmp_path)
    assert (found.mean, found.std) == (IMAGENET.mean, IMAGENET.std)
    assert (found.resize, found.size, found.interpolation) == ("stretch", (512, 512), "antialias")
    assert processed(tmp_path, image_mean=None, size=None, rescale_factor=None) == found
    # What another library's processor does not say, nobody knows.
    other = processed(tmp_path, image_processor_type="ViTImageProcessor", image_mean=[0.5, 0.5, 0.5])
    assert (other.mean, other.resize, other.size) == (HALF, None, None)
    assert "std" not in other.said


@pytest.mark.parametrize(
    ("said", "mean", "std"),
    [
        ({"image_mean": [0, 0.2, 1], "image_std": [1, 0.5, 0.1]}, (0.0, 51.0, 255.0), (255.0, 127.5, 25.5)),
        ({"image_mean": 0.5, "image_std": 0.125}, HALF, EIGHTH),
        ({"do_normalize": False}, (0.0,) * 3, (255.0,) * 3),
        ({"do_normalize": False, "do_rescale": False}, (0.0,) * 3, (1.0,) * 3),
        ({"do_rescale": False, "image_mean": [10, 20, 30], "image_std": [4, 5, 6]}, (10, 20, 30), (4, 5, 6)),
        ({"rescale_factor": 2 / 255, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]}, HALF, HALF),
    ],
)
def test_pixels_as_the_processor_makes_them(tmp_path, said, mean, std):
    found = usable(processed(tmp_path, **said))
    assert found.mean == pytest.approx(mean)
    assert found.std == pytest.approx(std)
    # The same arithmetic as the library's, on a pixel.
    pixel, scale = 200.0, said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 1.0
    value = pixel * scale
    if said.get("do_normalize", True):
        first = [each if isinstance(each, float) else each[0] for each in (said["image_mean"], said["image_std"])]
        value = (value - first[0]) / first[1]
    assert (pixel - found.mean[0]) / found.std[0] == pytest.approx(value)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"rescale_factor": float("nan")}, "rescale_factor nan, expected a positive number: give --mean and --std"),
        ({"rescale_factor": 0}, "rescale_factor 0"),
        ({"rescale_factor": "x"}, "rescale_factor 'x'"),
        ({"do_rescale": False}, r"image_mean \[0\.485, .* expected 3 numbers, on the scale of pixels times 1: give"),
        ({"image_mean": [123.7, 116.3, 103.5]}, r"image_mean \[123.7, .*, expected 3 numbers, 0 to 1: give --mean"),
        ({"image_mean": ["a", "b", "c"]}, "image_mean"),
        ({"image_mean": [10**400, 0, 0]}, "image_mean"),
        ({"image_std": [0.5, float("nan"), 0.5]}, "image_std"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std .*, expected 3 positive numbers"),
        ({"do_center_crop": True}, "do_center_crop, which leaves out .*: give --resize and --res"),
        ({"size": {"longest_edge": 512}}, r"the size {'longest_edge': 512}, which sfpp does not know: give --resize"),
        ({"size": {"height": 0, "width": 512}}, "the size"),
        ({"size": {"height": 10**9, "width": 512}}, "the size"),
        ({"size": {"height": True, "width": 512}}, "the size"),
        ({"size": "512"}, "the size '512'"),
        ({"size": {"shortest_edge": 512}}, "512 pixels on their shorter side, .*: give --res, such as 910x512 for"),
    ],
)
def test_what_is_not_understood_is_asked_for(tmp_path, said, message):
    found = processed(tmp_path, **said)
    with pytest.raises(CheckpointError, match=rf"^weights: preprocessor_config\.json has .*{message}"):
        usable(found)
    told = usable(found, mean=HALF, std=HALF, resize="letterbox", res="64x32") if "size" not in found.unclear else None
    assert told is None or (told.mean, told.std, told.resize, told.size) == (HALF, HALF, "letterbox", (64, 32))


@pytest.mark.parametrize(
    ("size", "rule", "expected"),
    [
        (512, "stretch", (512, 512)),
        ([384, 640], "stretch", (640, 384)),
        ({"height": 384, "width": 640}, "stretch", (640, 384)),
        ({"shortest_edge": 512, "longest_edge": 2048}, "letterbox", (2048, 512)),
        ({"max_height": 300, "max_width": 400}, "letterbox", (400, 300)),
    ],
)
def test_sizes_that_a_processor_may_have(tmp_path, size, rule, expected):
    found = processed(tmp_path, **{**PROCESSOR, "size": size})
    assert (found.resize, found.size) == (rule, expected)


def test_a_shortest_side_needs_a_size(tmp_path):
    found = usable(processed(tmp_path, size={"shortest_edge": 512}), res="910x512")
    assert (found.resize, found.size) == ("letterbox", (910, 512))


def test_a_processor_that_does_not_resize(tmp_path):
    found = processed(tmp_path, do_resize=False)
    assert (found.resize, found.size, found.interpolation) == (None, None, None)


@pytest.mark.parametrize(("number", "name"), [(3, "bicubic"), (0, "nearest"), ("bilinear", "'bilinear'")])
def test_a_filter_that_there_is_not_is_told(tmp_path, number, name):
    (note,) = processed(tmp_path, resample=number).notes
    assert note == (
        f"preprocessor_config.json resizes with the filter {name}, which sfpp does not have: bilinear with "
        "antialiasing takes its place"
    )


def test_mmsegmentation_1():
    found = configured(NEW)
    assert (found.mean, found.std, found.color_order) == ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395), "BGR")
    assert (found.align_corners, found.size_divisor) == (True, 32)
    assert (found.resize, found.size, found.interpolation) == ("pad", (2048, 1024), "linear")
    assert (found.unclear, found.notes) == ({}, ())
    assert found.words(resize="pad", size=Resolution(2048, 1024)) == (
        "prepared as in training: mean 103.53 116.28 123.675, std 57.375 57.12 58.395, BGR, resize pad "
        "2048x1024, interpolation linear, align_corners True, sizes in multiples of 32 (meta.cfg)"
    )


def test_a_head_that_upsamples_otherwise_is_refused():
    found = configured("model = dict(decode_head=dict(interpolate_mode='nearest'))")
    with pytest.raises(CheckpointError, match="interpolate_mode 'nearest', and sfpp upsamples bilinearly"):
        found.overruled(PreparationOptions(align_corners=False), channels=3)


def test_what_training_pads_says_nothing_of_testing():
    found = configured("model = dict(data_preprocessor=dict(mean=[1, 2, 3], std=[4, 5, 6], size_divisor=32))")
    assert (found.size_divisor, found.resize) == (1, None)
    found = configured("model = dict(data_preprocessor=dict(test_cfg=dict(size_divisor=16)))")
    assert (found.size_divisor, found.resize) == (16, "pad")


def test_mmsegmentation_0():
    found = configured(OLD, key="config")
    # The step that normalizes counts, and not what stands above.
    assert (found.mean, found.std, found.color_order) == (IMAGENET.mean, IMAGENET.std, "RGB")
    assert (found.align_corners, found.size_divisor) == (False, 32)
    assert (found.resize, found.size, found.interpolation) == ("letterbox", (2048, 512), "linear")
    assert found.said["mean"] == "meta.config"
    without = configured("img_norm_cfg = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=False)")
    assert (without.mean, without.std, without.color_order) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), "BGR")
    assert configured("img_norm_cfg = dict(mean=[1, 2, 3], std=[4, 5, 6])").color_order == "RGB"


@pytest.mark.parametrize(
    ("step", "rule", "size"),
    [
        ("dict(type='Resize', scale=(640, 384))", "stretch", (640, 384)),
        ("dict(type='Resize', scale=(384, 640), keep_ratio=False)", "stretch", (384, 640)),
        ("dict(type='Resize', scale=(384, 640), keep_ratio=True)", "letterbox", (640, 384)),
        ("dict(type='Resize', scale=512)", "stretch", (512, 512)),
        ("dict(type='Resize', img_scale=[(640, 384)])", "letterbox", (640, 384)),
        ("dict(type='Resize', scale_factor=0.5)", None, None),
        ("dict(type='Flip')", None, None),
    ],
)
def test_the_resize_of_the_test_pipeline(step, rule, size):
    found = configured(f"test_pipeline = [{step}]")
    assert (found.resize, found.size, found.notes) == (rule, size, ())


def test_scales_that_are_not_one_size_are_told():
    several = configured("test_pipeline = [dict(type='Resize', img_scale=[(640, 384), (1280, 768)])]")
    assert several.size is None
    assert several.notes == (
        "meta.cfg resizes to [(640, 384), (1280, 768)] in testing, which is not one size: give --res",
    )
    assert configured("test_pipeline = [dict(type='ResizeShortestEdge', scale=(512, 99), max_size=9)]").size is None
    (note,) = configured("test_pipeline = [dict(type='Resize', scale=(64, 32), interpolation='bicubic')]").notes
    assert "the interpolation 'bicubic', which sfpp does not have" in note


def test_sliding_windows_are_told():
    (note,) = configured("model = dict(test_cfg=dict(mode='slide', crop_size=(1024, 1024), stride=(768, 768)))").notes
    assert note.startswith("meta.cfg tests with windows of (1024, 1024) that slide over the image")


def test_a_preprocessor_without_numbers_normalizes_nothing():
    found = configured("model = dict(data_preprocessor=dict(type='SegDataPreProcessor', bgr_to_rgb=True))")
    assert (found.mean, found.std, found.color_order) == ((0.0,) * 3, (1.0,) * 3, "RGB")
    found = configured("data_preprocessor = dict(mean=[1, 2, 3], std=[4, 5, 6], rgb_to_bgr=True)")
    assert (found.mean, found.color_order) == ((1.0, 2.0, 3.0), "RGB")
    assert configured("data_preprocessor = dict(mean=[7], std=[8])").mean == (7.0, 7.0, 7.0)


def test_mmpose():
    found = configured(
        "codec = dict(type='MSRAHeatmap', input_size=(192, 256))\n"
        "model = dict(data_preprocessor=dict(\n"
        "    type='PoseDataPreprocessor', mean=[1, 2, 3], std=[4, 5, 6], bgr_to_rgb=True))"
    )
    assert (found.mean, found.color_order, found.size, found.resize) == ((1.0, 2.0, 3.0), "RGB", (192, 256), None)
    old = configured(
        "data_cfg = dict(image_size=[192, 256])\ntest_pipeline = [dict(type='TopDownAffine'), "
        "dict(type='NormalizeTensor', mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5])]"
    )
    assert (old.mean, old.std, old.color_order, old.size) == (HALF, HALF, "RGB", (192, 256))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data_preprocessor = dict(mean=numbers(), std=[1, 2, 3])", "mean what sfpp cannot read without running it"),
        ("data_preprocessor = dict(mean=[1, 2], std=[1, 2, 3])", r"mean \[1, 2\], expected 3 numbers: give --mean"),
        ("data_preprocessor = dict(mean=[1, 2, 3], std=[1, 0, 3])", "std"),
        ("data_preprocessor = dict(mean=[1, 2, 3])", "std"),
        ("data_preprocessor = dict(mean=[1, 2, 1e999], std=[1, 2, 3])", "mean"),
        ("data_preprocessor = dict(mean=[1, 2, 0x" + "f" * 2000 + "], std=[1, 2, 3])", "mean"),
        ("data_preprocessor = build()", "the color order what sfpp cannot read"),
        ("model = build()", "cannot read without running it"),
        ("data_preprocessor = dict(mean=[1, 2, 3], std=[1, 2, 3], bgr_to_rgb=f())", "the color order"),
        ("model = dict(decode_head=dict(align_corners=f()))", "align_corners .*: give --align-corners or --no-align"),
        ("model = dict(decode_head=dict(align_corners='yes'))", "align_corners 'yes', expected True or False"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_asked_for(text, message):
    found = configured(text)
    with pytest.raises(CheckpointError, match=rf"^weights: meta\.cfg has .*{message}"):
        usable(found)
    options = {"mean": (1, 2, 3), "std": (4, 5, 6), "color_order": "BGR", "align_corners": True}
    told = usable(found, **options)
    assert (told.mean, told.std, told.color_order, told.align_corners) == ((1, 2, 3), (4, 5, 6), "BGR", True)


def test_a_text_of_which_nothing_can_be_read_is_told():
    found = configured("model = (")
    assert found.mean == IMAGENET.mean
    assert found.notes == ("meta.cfg says nothing that can be read: it is not Python (SyntaxError)",)


def test_what_the_user_says_counts():
    found = usable(
        configured(NEW), mean=[1, 2, 3], std=(4, 5, 6), color_order="RGB", resize="stretch", res="640x384",
        interpolation="area", align_corners=False,
    )  # fmt: skip
    assert (found.mean, found.std, found.color_order) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), "RGB")
    assert (found.resize, found.size, found.interpolation, found.align_corners) == (
        "stretch",
        (640, 384),
        "area",
        False,
    )
    assert found.words(resize="stretch", size=Resolution(640, 384)) == (
        "prepared as in training: mean 1 2 3 (--mean); std 4 5 6 (--std); RGB (--color-order); resize stretch "
        "(--resize); size 640x384 (--res; meta.cfg says 2048x1024); interpolation area (--interpolation); "
        "align_corners False (--no-align-corners); sizes in multiples of 32 (meta.cfg)"
    )
    assert usable(found, res="640x384") == found


def test_another_order_needs_its_numbers():
    with pytest.raises(
        UsageError,
        match=r"--color-order BGR is another order than that of mean 123\.675 116\.28 103\.53, which is for RGB: give "
        r"--mean and --std too, in the order BGR",
    ):
        usable(Preparation(), color_order="BGR")
    same = usable(Preparation(mean=HALF, std=HALF), color_order="BGR")
    assert (same.color_order, same.mean) == ("BGR", HALF)
    assert usable(Preparation(), color_order="BGR", mean=(1, 2, 3), std=(4, 5, 6)).mean == (1.0, 2.0, 3.0)


def test_other_numbers_of_channels():
    with pytest.raises(
        CheckpointError, match=r"^weights: the network takes 4 channels, and nothing says how to normalize them: give -"
    ):
        usable(Preparation(), channels=4)
    four = usable(Preparation(), channels=4, mean=(1, 2, 3, 4), std=(5, 6, 7, 8))
    assert (four.mean, four.std) == ((1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0))
    with pytest.raises(UsageError, match="--mean has 1 numbers, and the network takes 3 channels"):
        usable(Preparation(), mean=(1,), std=(1,))
    grey = configured("data_preprocessor = dict(mean=[7], std=[8])", channels=1)
    assert usable(grey, channels=1).mean == (7.0,)


def test_a_single_channel_of_a_processor(tmp_path):
    assert usable(processed(tmp_path, channels=1, image_mean=[0.5], image_std=[0.125]), channels=1).mean == (127.5,)
    assert usable(processed(tmp_path, channels=1, image_mean=0.5, image_std=0.5), channels=1).std == (127.5,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"std": (0.229, 0.224, 0.225)},
            r"--std is 0\.229 0\.224 0\.225, which is on the 0\.\.1 scale, expected 0\.\.",
        ),
        ({"mean": (0.485, 0.456, 0.406)}, r"give --mean 123\.675 116\.28 103\.53"),
        ({"std": (0.0, 1.0, 1.0)}, r"--std is 0 1 1, expected positive numbers"),
        ({"std": (-3.0, 1.0, 1.0)}, "expected positive numbers"),
        ({"mean": (float("nan"), 1.0, 1.0)}, "expected one number for each channel, such as 123.675 116.28 103.53"),
        ({"mean": ()}, "expected one number for each channel"),
        ({"mean": 3.0}, "--mean is 3.0, expected one number for each channel"),
        ({"mean": "1 2 3"}, "--mean is '1 2 3'"),
        ({"mean": (True, 1, 2)}, "--mean is"),
        ({"color_order": "GRB"}, "color_order is 'GRB', expected one of RGB, BGR"),
        ({"resize": "crop"}, "resize is 'crop', expected one of letterbox, pad, stretch"),
        ({"interpolation": "cubic"}, "interpolation is 'cubic', expected one of area, linear, antialias"),
    ],
)
def test_options_that_cannot_be_meant(options, message):
    for settings in (PreparationOptions, ExportSettings):
        with pytest.raises(UsageError, match=message):
            settings(**options)


def test_bytes_as_they_are_can_be_meant():
    options = PreparationOptions(mean=(0, 0, 0), std=(1, 1, 1))
    assert (options.mean, options.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_the_size_of_the_input():
    own = configured(NEW)

    def size(preparation, **settings):
        spec = input_spec(ExportSettings(**settings), "segmentation", preparation)
        return spec.width, spec.height

    assert size(own) == (1824, 1024)  # 16:9 in a box of 2048x1024, in multiples of 32
    assert size(Preparation()) == (1920, 1080)
    assert size(Preparation(size_divisor=32)) == (1920, 1088)
    assert size(Preparation(size=Resolution(500, 300), size_divisor=32)) == (512, 320)
    assert size(own, res="640x384") == (640, 384)
    for res, near in (("500x300", "480x288 or 512x320"), ("640x300", "640x288 or 640x320"), ("8x64", "32x64")):
        with pytest.raises(
            UsageError,
            match=rf"--res is {res} \(width x height\), but the network takes multiples of 32 \(meta\.cfg\); the "
            rf"nearest sizes are {near}$",
        ):
            size(own, res=res)


def test_the_contract_says_what_the_checkpoint_says():
    spec = input_spec(ExportSettings(), "segmentation", configured(NEW))
    assert (spec.mean, spec.std, spec.color_order) == ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395), "BGR")
    assert (spec.resize, spec.interpolation, spec.channels) == ("pad", "linear", 3)
    plain = input_spec(ExportSettings())
    assert (plain.resize, plain.interpolation, plain.color_order) == ("letterbox", "area", "RGB")
