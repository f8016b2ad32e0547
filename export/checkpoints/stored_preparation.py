"""What lies beside a checkpoint's weights, read for how its own library prepared images in training.

That is Transformers' ``processor_config.json`` or ``preprocessor_config.json``, or the configuration that
MMSegmentation and MMPose store in ``meta``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfpp.export.checkpoints.configuration import (
    ABSENT,
    UNREADABLE,
    Configuration,
    entry,
    kind_of,
    shown,
    stored_configuration,
)
from sfpp.export.checkpoints.preparation import NO_NUMBERS, SAYS_NOTHING, Preparation
from sfpp.export.checkpoints.storage import StoredWeights, read_json_object
from sfpp.export.checkpoints.styles import STYLES, StyleName
from sfpp.export.settings import MAX_SIDE, Resolution
from sfpp.runtime.contract import ResizeRule

_LARGEST_DIVISOR = 1024


def read_preparation(stored: StoredWeights, style: StyleName, *, channels: int = 3) -> Preparation:
    """Return how a checkpoint's own library prepares images, as far as anything beside the weights says it.

    Args:
        stored: the weights with what lies beside them.
        style: the checkpoint's.
        channels: how many the network takes.

    Raises:
        CheckpointError: a file that is not JSON.
    """
    if style == "transformers":
        return _from_transformers(stored.folder, channels)
    if STYLES[style].output_align_corners:
        return Preparation(align_corners=True, said={"align_corners": "Segmentation Models PyTorch"})
    configuration = stored_configuration(stored.metadata)
    return SAYS_NOTHING if configuration is None else _from_configuration(configuration, channels)


@dataclass
class _Facts:
    """Facts of one source while they are read."""

    source: str
    values: dict[str, Any] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    unclear: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def take(self, **facts: Any) -> None:
        self.values.update(facts)
        self.said.update(dict.fromkeys(facts, self.source))

    def doubt(self, facts: Iterable[str], problem: str, advice: str) -> None:
        self.unclear.update(dict.fromkeys(facts, f"{self.source} has {problem}: {advice}"))

    def preparation(self) -> Preparation:
        return Preparation(**self.values, said=self.said, unclear=self.unclear, notes=tuple(self.notes))


# Transformers

# What SegFormer's own processor does where its file is silent.
_SEGFORMER: Mapping[str, Any] = {
    "do_resize": True,
    "size": {"height": 512, "width": 512},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
_BILINEAR = 2
_FILTERS = {0: "nearest", 1: "lanczos", 3: "bicubic", 4: "box", 5: "hamming"}


def _from_transformers(folder: Path, channels: int) -> Preparation:
    source, settings, notes = _processor(folder)
    if settings is None:
        return SAYS_NOTHING
    facts = _Facts(source, notes=notes)
    named = str(settings.get("image_processor_type") or settings.get("feature_extractor_type") or "Segformer")
    known = _SEGFORMER if named.startswith("Segformer") else {}
    stated = {**known, **{key: value for key, value in settings.items() if value is not None}}
    _transformers_colors(facts, stated, channels)
    _transformers_size(facts, stated)
    return facts.preparation()


def _processor(folder: Path) -> tuple[str, Mapping[str, Any] | None, list[str]]:
    """Return which file says how images are prepared, what it says, and what is odd about it.

    Transformers 5 reads the object ``image_processor`` in processor_config.json before preprocessor_config.json.
    """
    newer, older = folder / "processor_config.json", folder / "preprocessor_config.json"
    inner = read_json_object(newer).get("image_processor") if newer.is_file() else None
    outer = read_json_object(older) if older.is_file() else None
    if not isinstance(inner, Mapping):
        return older.name, outer, []
    apart = [key for key in _SEGFORMER if outer is not None and outer.get(key, inner.get(key)) != inner.get(key)]
    odd = f"{newer.name} and {older.name} differ in {', '.join(apart)}: the first counts, as in Transformers 5"
    return newer.name, inner, [odd] if apart else []


def _transformers_colors(facts: _Facts, stated: Mapping[str, Any], channels: int) -> None:
    flips = stated.get("do_flip_channel_order") is True
    facts.take(color_order="BGR" if flips else "RGB")
    scale = stated.get("rescale_factor", 1 / 255) if stated.get("do_rescale", True) else 1.0
    if not _is_number(scale) or scale <= 0:
        facts.doubt(("mean", "std"), f"rescale_factor {shown(scale)}, expected a positive number", NO_NUMBERS)
        return
    is_usual = abs(scale * 255 - 1) <= 1e-6
    if not stated.get("do_normalize", True):
        facts.take(mean=(0.0,) * channels, std=(_on_bytes(1.0, scale, is_usual),) * channels)
        return
    for fact, key in (("mean", "image_mean"), ("std", "image_std")):
        if key not in stated:
            continue  # another library's processor, whose default nobody knows
        value = stated[key]
        numbers = _numbers([value] * channels if _is_number(value) else value)
        lowest = -math.inf if fact == "mean" else 0.0
        # Not divided by 255, numbers of the 0..1 scale are a mistake, or for arrays that were divided before.
        fits = numbers and (max(map(abs, numbers)) <= 1 if is_usual else scale != 1 or max(map(abs, numbers)) > 1)
        if not numbers or not fits or min(numbers) <= lowest:
            what = "positive numbers" if fact == "std" else "numbers"
            where = "0 to 1" if is_usual else f"on the scale of pixels times {scale:g}"
            facts.doubt((fact,), f"{key} {shown(value)}, expected {channels} {what}, {where}", NO_NUMBERS)
            continue
        facts.take(**{fact: tuple(_on_bytes(item, scale, is_usual) for item in numbers)})


def _on_bytes(value: float, scale: float, is_usual: bool) -> float:
    # Rounded, so that ImageNet's numbers are the contract's defaults to the last bit.
    return round(255.0 * value if is_usual else value / scale, 9)


def _transformers_size(facts: _Facts, stated: Mapping[str, Any]) -> None:
    if stated.get("do_center_crop"):
        facts.doubt(("resize",), "do_center_crop, which leaves out what lies at the sides", "give --resize and --res")
        return
    if not stated.get("do_resize", False):
        return
    filter_number = stated.get("resample", _BILINEAR)
    facts.take(interpolation="antialias")
    if filter_number != _BILINEAR:
        name = _FILTERS.get(filter_number) if isinstance(filter_number, int) else None
        facts.notes.append(
            f"{facts.source} resizes with the filter {name or shown(filter_number)}, which sfpp does not have: "
            "bilinear with antialiasing takes its place"
        )
    size = stated.get("size")
    if isinstance(size, int):
        size = {"height": size, "width": size}
    elif isinstance(size, list) and len(size) == 2:
        size = {"height": size[0], "width": size[1]}
    for rule, (wide, high) in _SIZE_KEYS:
        if isinstance(size, Mapping) and (found := _resolution(size.get(wide), size.get(high))):
            facts.take(resize=rule, size=found)
            return
    if isinstance(size, Mapping) and _resolution(size.get("shortest_edge"), 1):
        facts.take(resize="letterbox")
        short = size["shortest_edge"]
        problem = f"images resized to {short} pixels on their shorter side, which is a size only with a frame's shape"
        facts.doubt(("size",), problem, f"give --res, such as {round(short * 16 / 9)}x{short} for 16:9")
        return
    facts.doubt(("resize",), f"the size {shown(size)}, which sfpp does not know", "give --resize and --res")


_SIZE_KEYS: tuple[tuple[ResizeRule, tuple[str, str]], ...] = (
    ("letterbox", ("longest_edge", "shortest_edge")),
    ("letterbox", ("max_width", "max_height")),
    ("stretch", ("width", "height")),
)


# MMSegmentation and MMPose


def _from_configuration(configuration: Configuration, channels: int) -> Preparation:
    facts = _Facts(configuration.source)
    facts.take(through_input=True)  # as both libraries' own testing does, whatever is configured
    if configuration.problem:
        facts.notes.append(f"{configuration.source} says nothing that can be read: {configuration.problem}")
        return facts.preparation()
    steps = configuration.test_steps()
    _configured_colors(facts, configuration, steps, channels)
    _configured_size(facts, configuration, steps)
    _configured_divisor(facts, configuration, steps)
    aligned = configuration.at("model", "decode_head", "align_corners")
    if isinstance(aligned, bool):
        facts.take(align_corners=aligned)
    elif aligned is not ABSENT:
        problem = f"align_corners {shown(aligned)}, expected True or False"
        facts.doubt(("align_corners",), problem, "give --align-corners or --no-align-corners")
    mode = configuration.at("model", "decode_head", "interpolate_mode")
    if mode not in (ABSENT, UNREADABLE, "bilinear"):  # of a head that cannot be read more is asked for anyway
        problem = f"the decode_head.interpolate_mode {shown(mode)}, and sfpp upsamples bilinearly"
        facts.doubt(("interpolate_mode",), problem, "train the network with that")
    if configuration.at("model", "test_cfg", "mode") == "slide":
        crop = shown(configuration.at("model", "test_cfg", "crop_size"))
        facts.notes.append(
            f"{facts.source} tests with windows of {crop} that slide over the image, and sfpp gives the network whole "
            "frames: labels differ a little"
        )
    return facts.preparation()


def _configured_colors(
    facts: _Facts, configuration: Configuration, steps: list[Mapping[str, Any]], channels: int
) -> None:
    """Take mean, std and order from the data preprocessor (1.x), or the step that normalizes (0.x)."""
    found = (configuration.at(*path) for path in (("model", "data_preprocessor"), ("data_preprocessor",)))
    preprocessor = next((each for each in found if each is not ABSENT), ABSENT)
    normalizing = [step for step in steps if kind_of(step) in ("Normalize", "NormalizeTensor")]
    flips = [entry(preprocessor, key) for key in ("bgr_to_rgb", "rgb_to_bgr")]
    unit = 1.0
    if preprocessor is not ABSENT and not (normalizing and _is_none(entry(preprocessor, "mean"))):
        # Images are read as BGR; either of the two turns the channels round.
        source, to_rgb = preprocessor, UNREADABLE if UNREADABLE in flips else True in flips
        if _is_none(entry(source, "mean")) and _is_none(entry(source, "std")):
            facts.take(mean=(0.0,) * channels, std=(1.0,) * channels)
    else:
        source = normalizing[0] if normalizing else configuration.at("img_norm_cfg")
        if source is ABSENT:
            return
        to_rgb = entry(source, "to_rgb")
        if kind_of(source) == "NormalizeTensor":  # of MMPose 0.x: RGB, divided by 255 before
            unit, to_rgb = 255.0, True
        to_rgb = True if _is_none(to_rgb) else to_rgb
    if isinstance(to_rgb, bool):
        facts.take(color_order="RGB" if to_rgb else "BGR")
    else:
        facts.doubt(("color_order",), f"the color order {shown(to_rgb)}", "give --color-order, --mean and --std")
    for fact in ("mean", "std"):
        if fact not in facts.values:
            value = entry(source, fact)
            numbers = _numbers([value] if _is_number(value) else value)
            numbers = numbers * channels if len(numbers) == 1 else numbers
            if len(numbers) != channels or (fact == "std" and min(numbers) <= 0):
                facts.doubt((fact,), f"{fact} {shown(value)}, expected {channels} numbers", NO_NUMBERS)
                continue
            facts.take(**{fact: tuple(round(unit * number, 9) for number in numbers)})


def _configured_size(facts: _Facts, configuration: Configuration, steps: list[Mapping[str, Any]]) -> None:
    """Take the rule and the size from the step of the test pipeline that resizes, or the size of a pose's crop."""
    for path in (("codec", "input_size"), ("data_cfg", "image_size")):  # of MMPose 1.x and 0.x
        crop = configuration.at(*path)
        if isinstance(crop, list | tuple) and len(crop) == 2 and (found := _resolution(*crop)):
            facts.take(size=found)
    resizing = [step for step in steps if kind_of(step) in ("Resize", "AlignedResize", "ResizeShortestEdge")]
    if not resizing:
        return
    step = resizing[0]
    old = "img_scale" in step
    scale = step.get("img_scale", step.get("scale"))
    keeps = step.get("keep_ratio", old)
    how = step.get("interpolation", "bilinear")
    # A list of one scale, as old configurations have it, is that scale.
    scale = scale[0] if isinstance(scale, list | tuple) and len(scale) == 1 else scale
    sides = [scale, scale] if isinstance(scale, int) else scale
    known = len(resizing) == 1 and isinstance(sides, list | tuple) and len(sides) == 2 and isinstance(keeps, bool)
    size = _resolution(*sides) if known and isinstance(sides, list | tuple) else None
    if kind_of(step) == "ResizeShortestEdge" or size is None:
        if not _is_none(scale):
            facts.notes.append(
                f"{facts.source} resizes to {shown(scale)} in testing, which is not one size: give --res"
            )
        return
    # With a ratio to keep, the larger number bounds the longer side, whichever comes first.
    box = Resolution(max(size), min(size)) if keeps else size
    facts.take(resize="letterbox" if keeps else "stretch", size=box, interpolation="linear")
    if how != "bilinear":
        facts.notes.append(
            f"{facts.source} resizes with the interpolation {shown(how)}, which sfpp does not have: linear takes its "
            "place"
        )


def _configured_divisor(facts: _Facts, configuration: Configuration, steps: list[Mapping[str, Any]]) -> None:
    """Take what sizes are a multiple of in testing; training pads crops, which is another matter."""
    preprocessors = (("model", "data_preprocessor"), ("data_preprocessor",))
    stated = [configuration.at(*path, "test_cfg") for path in preprocessors]
    padding = [step for step in steps if kind_of(step) in ("Pad", "AlignedResize")]
    for holder in (*stated, *padding):
        divisor = entry(holder, "size_divisor")
        if _is_none(divisor):
            continue
        if isinstance(divisor, int) and 1 <= divisor <= _LARGEST_DIVISOR:
            facts.take(size_divisor=int(divisor))
            if kind_of(holder) != "AlignedResize" and facts.values.get("resize") != "stretch":
                facts.take(resize="pad")  # what is missing is added at the right and below
        else:
            facts.notes.append(f"{facts.source} has the size divisor {shown(divisor)}, which is left out")
        return


def _is_none(value: object) -> bool:
    return value is None or value is ABSENT


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def _numbers(value: object) -> list[float]:
    """Return a list's finite numbers; none where it is anything else."""
    if not isinstance(value, list | tuple) or not all(map(_is_number, value)):
        return []
    return [float(item) for item in value]


def _resolution(width: object, height: object) -> Resolution | None:
    sides = [side for side in (width, height) if type(side) is int and 1 <= side <= MAX_SIDE]
    return Resolution(sides[0], sides[1]) if len(sides) == 2 else None
