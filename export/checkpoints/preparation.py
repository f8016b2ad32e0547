"""How a checkpoint's own library prepared images in training, who says so, and what a user says in its place.

Whatever of it could not be understood where it was read is asked for before it matters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from typing import Any

from sfpp.export.settings import PreparationOptions, Resolution, numbers_text, resolution_from
from sfpp.runtime.contract import ColorOrder, InputSpec, Interpolation, ResizeRule
from sfpp.runtime.errors import CheckpointError, UsageError

IMAGENET = InputSpec("image", 1, 1)  # the contract's own defaults
_COLORS = ("mean", "std", "color_order")
_OPTIONS = tuple(option.name for option in fields(PreparationOptions))
_UNSAID = "ImageNet's mean and std, RGB: the checkpoint says nothing; --mean --std --color-order say otherwise"
NO_NUMBERS = "give --mean and --std, one number for each channel from 0 to 255"


@dataclass(frozen=True)
class Preparation:
    """What the training's images looked like to the network.

    Attributes:
        mean: of each channel, 0..255, in ``color_order``.
        std: likewise.
        color_order: the order of the channels.
        resize: how images were fitted to ``size``; None where nothing says.
        size: the library's own input size, or the box in which an image keeps its ratio; None where it has none.
        interpolation: how they were resized; None where nothing says.
        align_corners: how the network and what follows it upsample.
        through_input: whether logits are upsampled to the input's size first, and from there to the image's.
        size_divisor: of which both sides of the input are multiples.
        said: where each of these facts was read, in words, such as ``meta.cfg`` or ``--mean``.
        unclear: what the checkpoint says of a fact that sfpp does not understand, and what to do; an option overrules.
        notes: what else there is to say.
    """

    mean: tuple[float, ...] = IMAGENET.mean
    std: tuple[float, ...] = IMAGENET.std
    color_order: ColorOrder = "RGB"
    resize: ResizeRule | None = None
    size: Resolution | None = None
    interpolation: Interpolation | None = None
    align_corners: bool = False
    through_input: bool = False
    size_divisor: int = 1
    said: Mapping[str, str] = field(default_factory=dict)
    unclear: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def overruled(
        self, options: PreparationOptions, *, channels: int, res: str | tuple[int, int] | None = None, name: str = ""
    ) -> Preparation:
        """Return it with what the user says in place of what the checkpoint says.

        Args:
            options: what is not None counts.
            channels: how many the network takes.
            res: the input's size.
            name: stands for the checkpoint in messages.

        Raises:
            UsageError: numbers for another number of channels, or another order without the numbers in that order.
            CheckpointError: something is unclear, and no option says it.
        """
        given: dict[str, Any] = {
            fact: value for fact in _OPTIONS if (value := getattr(options, fact, None)) is not None
        }
        said = {fact: f"--{fact.replace('_', '-')}" for fact in given}
        if given.get("align_corners") is False:
            said["align_corners"] = "--no-align-corners"
        if res is not None and (size := resolution_from(res)) != self.size:
            given["size"] = size
            said["size"] = "--res" if self.size is None else f"--res; {self.said['size']} says {self.size}"
        self._check_order(given)
        changed = replace(
            self,
            **given,
            said={**self.said, **said},
            unclear={fact: reason for fact, reason in self.unclear.items() if fact not in given},
        )
        changed._check_channels(channels, name)
        return changed

    def usual_size(self, default: Resolution) -> Resolution:
        """Return the input's size where nobody gives one: the library's own, or else ``default``.

        Where images keep their ratio the library's is a box: a frame of the default's shape, as large as fits.
        """
        if self.size is None or self.resize not in ("letterbox", "pad"):
            return self.size or default
        scale = min(max(self.size) / max(default), min(self.size) / min(default))
        return Resolution(round(default.width * scale), round(default.height * scale))

    def words(self, *, resize: ResizeRule, size: Resolution) -> str:
        """Return in one line how images are prepared and who says so.

        Args:
            resize: the rule that is used.
            size: the size that is used.
        """
        lone = not any(fact in self.said for fact in _COLORS)
        facts = [(_UNSAID, "")] if lone else list(self._colors())
        facts += self._geometry(resize, size)
        if self.align_corners or "align_corners" in self.said:
            facts.append((f"align_corners {self.align_corners}", self.said.get("align_corners", "")))
        if self.size_divisor > 1:
            facts.append((f"sizes in multiples of {self.size_divisor}", self.said.get("size_divisor", "")))
        groups = [(", ".join(text for text, _ in group), source) for source, group in groupby(facts, lambda it: it[1])]
        texts = [f"{text} ({source})" if source else text for text, source in groups]
        return "; ".join(texts if lone else [f"prepared as in training: {texts[0]}", *texts[1:]])

    def _check_order(self, given: Mapping[str, Any]) -> None:
        order = given.get("color_order", self.color_order)
        for fact in ("mean", "std"):
            values = getattr(self, fact)
            if order != self.color_order and fact not in given and values != values[::-1]:
                raise UsageError(
                    f"--color-order {order} is another order than that of {fact} {numbers_text(values)}, which is for "
                    f"{self.color_order}: give --mean and --std too, in the order {order}"
                )

    def _check_channels(self, channels: int, name: str) -> None:
        """Refuse what is not known well enough to prepare an image."""
        for reason in dict.fromkeys(self.unclear.values()):
            raise CheckpointError(f"{name}: {reason}" if name else reason)
        for fact in ("mean", "std"):
            values, source = getattr(self, fact), self.said.get(fact, "")
            if len(values) == channels:
                continue
            if source.startswith("--"):
                raise UsageError(f"--{fact} has {len(values)} numbers, and the network takes {channels} channels")
            origin = (
                f"{source} has {len(values)} numbers for {fact}" if source else "nothing says how to normalize them"
            )
            raise CheckpointError(f"{name}: the network takes {channels} channels, and {origin}: {NO_NUMBERS}")

    def _colors(self) -> Iterator[tuple[str, str]]:
        yield f"mean {numbers_text(self.mean)}", self.said.get("mean", "ImageNet's")
        yield f"std {numbers_text(self.std)}", self.said.get("std", "ImageNet's")
        yield self.color_order, self.said.get("color_order", "by default")

    def _geometry(self, resize: ResizeRule, size: Resolution) -> Iterator[tuple[str, str]]:
        by_rule, by_size = self.said.get("resize"), self.said.get("size")
        if by_rule and by_rule == by_size:
            yield f"resize {resize} {size}", by_rule
        else:
            if by_rule:
                yield f"resize {resize}", by_rule
            if by_size and (by_rule or by_size != "--res"):
                yield f"size {size}", by_size
        if self.interpolation is not None and "interpolation" in self.said:
            yield f"interpolation {self.interpolation}", self.said["interpolation"]


SAYS_NOTHING = Preparation()
