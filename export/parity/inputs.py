"""Why a graph's input differs: try the usual mistakes on PyTorch's side and name the one that makes it agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sfpp.runtime.contract import InputSpec, Interpolation, ModelContract, ResizeRule

Images = NDArray[np.float32]  # (batch, channels, height, width), in the order of the training
Vector = NDArray[np.float64]  # (channels,)

# A mistake is found if with it this much of the difference is left at most.
_EXPLAINED = 1e-3
_GEOMETRY = ("resize", "interpolation")


@dataclass(frozen=True, eq=False)
class Suspect:
    """A mistake, and the image that the network would be given with it.

    ``words`` say what was done, as in "with WORDS it agrees", and ``verdict`` what is therefore wrong.
    """

    words: str
    verdict: str
    image: Images


def suspects(contract: ModelContract, trained: InputSpec, prepare: Callable[[InputSpec], Images]) -> Iterator[Suspect]:
    """Yield the usual mistakes, the likeliest first.

    Args:
        contract: the file's.
        trained: how the checkpoint was trained to see frames.
        prepare: makes the input (batch, ...) of the frames as a spec says.
    """
    raw = prepare(dataclasses.replace(trained, normalized_in_graph=True))
    for pixels in (*_wrong_pixels(contract, trained, prepare, raw), Suspect("", "", raw)):
        for words, verdict, mean, std in _normalizations(contract, trained):
            if pixels.words or words:
                image = _normalized(pixels.image, mean, std)
                yield Suspect(_joined(pixels.words, words), _joined(pixels.verdict, verdict), image)
    yield from _wrong_geometry(trained, prepare, _normalized(raw, trained.mean, trained.std))


def closest(found: Iterable[Suspect], graph: Images, *, step: int, tolerance: float) -> Suspect | None:
    """Return the suspect whose image is the graph's, up to rounding; None where there is none.

    Args:
        found: the suspects.
        graph: the graph's input, normalized, (batch, channels, h, w).
        step: by which the network thins its input out.
        tolerance: relative error that the precision allows.
    """
    limit = max(tolerance, _EXPLAINED)
    # One image at a time: at 3840x2160 each has 100 MB.
    errors = ((relative_error(graph, each.image[:, :, ::step, ::step]), each) for each in found)
    best = min(((error, index, each) for index, (error, each) in enumerate(errors)), default=None)
    return best[2] if best is not None and best[0] <= limit else None


def fitted_normalization(graph: Images, raw: Images, *, tolerance: float, order: str = "RGB") -> str | None:
    """Return which channels, mean and standard deviation would make the graph's input of raw values, in words.

    Each channel of the graph is explained by the raw channel that predicts it best. None where none does.

    Args:
        graph: (batch, channels, h, w).
        raw: (batch, channels, h, w), 0..255.
        tolerance: relative error that may be left.
        order: of the raw channels.
    """
    # A channel that no straight line explains is no matter of normalization.
    count = raw.shape[1]
    fits = [
        min((*_line(values, raw[:, channel]), channel) for channel in range(count)) for values in graph.swapaxes(0, 1)
    ]
    if not all(left <= max(tolerance, _EXPLAINED) and slope for left, slope, _, _ in fits):
        return None
    mean, std = [-shift / slope for _, slope, shift, _ in fits], [1 / slope for _, slope, _, _ in fits]
    found = [channel for *_, channel in fits]
    names = "".join(order[channel] for channel in found) if count == len(order) else f"{found}"
    channels = "" if found == list(range(count)) else f"takes its channels in the order {names} and "
    return f"the graph {channels}normalizes with {numbers(mean, std)}"


def numbers(mean: Iterable[float], std: Iterable[float]) -> str:
    """Return mean and standard deviation in words."""
    texts = [", ".join(f"{value:.6g}" for value in channels) for channels in (mean, std)]
    return f"mean ({texts[0]}) and std ({texts[1]})"


def relative_error(graph: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return the root mean square of the difference over that of the reference; infinite for other shapes."""
    if graph.shape != reference.shape:
        return float("inf")
    apart = np.asarray(graph, np.float64) - reference
    return float(np.linalg.norm(apart) / max(float(np.linalg.norm(reference)), 1e-30))


def _wrong_pixels(
    contract: ModelContract, trained: InputSpec, prepare: Callable[[InputSpec], Images], raw: Images
) -> Iterator[Suspect]:
    """Yield raw pixels, 0..255, other than those that the checkpoint was trained on."""
    said = contract.input
    order = f"the contract says {said.color_order}, the checkpoint was trained on {trained.color_order}"
    exchanged = "red and blue exchanged", f"the color order is wrong ({order})"
    if differing := _differing(said, trained):
        # What the contract makes of a frame, down to the border of the letterbox, which has the mean's color.
        words = exchanged if differing[0] == "color_order" else _contracts_own(contract, trained)
        if differing[0] in _GEOMETRY:
            words = _contracts_geometry(said, trained, differing)
        fed = dataclasses.replace(said, layout="NCHW", dtype="float32", normalized_in_graph=True)
        yield Suspect(*words, prepare(fed))
    yield Suspect(*exchanged, raw[:, ::-1])


def _differing(said: InputSpec, trained: InputSpec) -> list[str]:
    facts = ("color_order", "mean", "std", *_GEOMETRY)
    return [fact for fact in facts if getattr(said, fact) != getattr(trained, fact)]


def _contracts_geometry(said: InputSpec, trained: InputSpec, facts: list[str]) -> tuple[str, str]:
    pairs = [(fact, getattr(said, fact), getattr(trained, fact)) for fact in facts]
    words = " and ".join(f"the contract's {fact} {has}" for fact, has, _ in pairs)
    return words, "; ".join(f"{fact}: contract says {has}, training {expected}" for fact, has, expected in pairs)


def _contracts_own(contract: ModelContract, trained: InputSpec) -> tuple[str, str]:
    said = numbers(contract.input.mean, contract.input.std)
    training = f"the checkpoint's training says {numbers(trained.mean, trained.std)}"
    return "the contract's mean and std", f"mean/std differ: contract says {said}, {training}"


def _normalizations(contract: ModelContract, trained: InputSpec) -> Iterator[tuple[str, str, Vector, Vector]]:
    """Yield the right normalization, without words, and wrong ones: each a mean and a std for raw values 0..255."""
    said, mean, std = contract.input, np.array(trained.mean), np.array(trained.std)
    zero, one = np.zeros_like(mean), np.ones_like(mean)
    expected = f"the checkpoint's training says {numbers(trained.mean, trained.std)}"
    yield "", "", mean, std
    yield *_contracts_own(contract, trained), np.array(said.mean), np.array(said.std)
    words = "mean and std in the order blue, green, red"
    yield words, f"red and blue are exchanged in mean and std; {expected}", mean[::-1], std[::-1]
    yield "normalization skipped", "raw values 0..255 reach the network: nothing normalizes them", zero, one
    words = "frames are normalized twice, by the runtime and by the graph"
    yield "normalization applied twice", words, mean + mean * std, std * std
    yield "values of 0..1", "frames are divided by 255 and not normalized", zero, 255 * one
    yield "values of -1..1", "frames are scaled to -1..1 and not normalized", 127.5 * one, 127.5 * one
    words = "frames are divided by 255, and then normalized by mean and std for 0..255"
    yield "values of 0..1 normalized as if they were 0..255", words, 255 * mean, 255 * std
    words = f"mean and std are on the 0..1 scale and the frames on 0..255; {expected}"
    yield "values of 0..255 normalized as if they were 0..1", words, mean / 255, std / 255
    yield "the mean subtracted only", "nothing divides by std", mean, one
    yield "the division by std only", "nothing subtracts the mean", zero, std


def _joined(*texts: str) -> str:
    """Join what is not empty, each once."""
    return " and ".join(dict.fromkeys(text for text in texts if text))


def _wrong_geometry(trained: InputSpec, prepare: Callable[[InputSpec], Images], once: Images) -> Iterator[Suspect]:
    other: ResizeRule = "stretch" if trained.resize == "letterbox" else "letterbox"
    rule = f"the frame is fitted by another rule than the training's {trained.resize}"
    yield Suspect(f"the resize rule {other}", rule, prepare(dataclasses.replace(trained, resize=other)))
    for interpolation in get_args(Interpolation):
        if interpolation != trained.interpolation:
            words = f"the interpolation {interpolation}"
            resized = prepare(dataclasses.replace(trained, interpolation=interpolation))
            yield Suspect(
                words, f"the frame is resized otherwise than in training, by {trained.interpolation}", resized
            )
    yield Suspect("the picture mirrored", "the picture is mirrored", once[..., ::-1])
    yield Suspect("the picture upside down", "the picture is upside down", once[:, :, ::-1])
    yield Suspect("the picture one pixel further", "sampling is off by one pixel", np.roll(once, -1, (2, 3)))


def _normalized(raw: Images, mean: ArrayLike, std: ArrayLike) -> Images:
    means, deviations = (np.asarray(each, np.float64).reshape(1, -1, 1, 1) for each in (mean, std))
    return np.asarray((raw - means) / deviations, np.float32)


def _line(values: Images, raw: Images) -> tuple[float, float, float]:
    """Return the relative error that a line from raw to values leaves, its slope and its shift."""
    x, y = raw.ravel().astype(np.float64), values.ravel().astype(np.float64)
    spread = float(x.var())
    slope = float(((x - x.mean()) * (y - y.mean())).mean()) / spread if spread else 0.0
    shift = float(y.mean()) - slope * float(x.mean())
    left = float(np.linalg.norm(y - slope * x - shift)) / max(float(np.linalg.norm(y)), 1e-30)
    return left, slope, shift
