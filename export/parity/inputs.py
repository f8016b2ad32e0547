"""Why a graph's input differs: try the usual mistakes on PyTorch's side and name the one that makes it agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.contract import InputSpec, ModelContract, ResizeRule

Images = NDArray[np.float32]  # (batch, 3, height, width), RGB
Triple = tuple[float, float, float]

# A mistake is found if with it this much of the difference is left at most.
_EXPLAINED = 1e-3


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
    right = Suspect("", "", raw)
    for base in (*_wrong_pixels(contract, trained, prepare, raw), right):
        if base is not right:
            yield dataclasses.replace(base, image=_normalized(base.image, trained.mean, trained.std))
        yield from _wrong_normalizations(contract, trained, base)
    yield from _wrong_geometry(trained, prepare, _normalized(raw, trained.mean, trained.std))


def closest(found: Iterable[Suspect], graph: Images, *, step: int, tolerance: float) -> Suspect | None:
    """Return the suspect whose image is the graph's, up to rounding; None where there is none.

    Args:
        found: the suspects.
        graph: the graph's input, normalized, (batch, 3, h, w).
        step: by which the network thins its input out.
        tolerance: relative error that the precision allows.
    """
    limit = max(tolerance, _EXPLAINED)
    # One image at a time: at 3840x2160 each has 100 MB.
    errors = ((relative_error(graph, each.image[:, :, ::step, ::step]), each) for each in found)
    best = min(((error, index, each) for index, (error, each) in enumerate(errors)), default=None)
    return best[2] if best is not None and best[0] <= limit else None


def fitted_normalization(graph: Images, raw: Images, *, tolerance: float) -> str | None:
    """Return which channels, mean and standard deviation would make the graph's input of raw values, in words.

    Each channel of the graph is explained by the raw channel that predicts it best. None where none does.

    Args:
        graph: (batch, 3, h, w).
        raw: (batch, 3, h, w), RGB, 0..255.
        tolerance: relative error that may be left.
    """
    # A channel that no straight line explains is no matter of normalization.
    fits = [min((*_line(values, raw[:, channel]), channel) for channel in range(3)) for values in graph.swapaxes(0, 1)]
    if not all(left <= max(tolerance, _EXPLAINED) and slope for left, slope, _, _ in fits):
        return None
    mean, std = _triple(-shift / slope for _, slope, shift, _ in fits), _triple(1 / slope for _, slope, _, _ in fits)
    order = "".join("RGB"[channel] for *_, channel in fits)
    channels = "" if order == "RGB" else f"takes its channels in the order {order} and "
    return f"the graph {channels}normalizes with {numbers(mean, std)}"


def numbers(mean: Triple, std: Triple) -> str:
    """Return mean and standard deviation in words."""
    texts = [", ".join(f"{value:.6g}" for value in triple) for triple in (mean, std)]
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
    fed = dataclasses.replace(said, layout="NCHW", dtype="float32", normalized_in_graph=True)
    if said.color_order != trained.color_order or (said.mean, said.std) != (trained.mean, trained.std):
        # What the contract makes of a frame, down to the border of the letterbox, which has the mean's color.
        words, verdict = _said_wrong(contract, trained)
        yield Suspect(words, verdict, prepare(fed))
    order = f"the contract says {said.color_order}, the checkpoint was trained on {trained.color_order}"
    yield Suspect("red and blue exchanged", f"the color order is wrong ({order})", raw[:, ::-1])


def _said_wrong(contract: ModelContract, trained: InputSpec) -> tuple[str, str]:
    """Return what the contract says otherwise than the training, and the verdict."""
    said = contract.input
    if said.color_order != trained.color_order:
        order = f"the contract says {said.color_order}, the checkpoint was trained on {trained.color_order}"
        return "red and blue exchanged", f"the color order is wrong ({order})"
    expected = f"the checkpoint's training says {numbers(trained.mean, trained.std)}"
    return "the contract's mean and std", f"mean/std differ: contract says {numbers(said.mean, said.std)}, {expected}"


def _wrong_normalizations(contract: ModelContract, trained: InputSpec, base: Suspect) -> Iterator[Suspect]:
    """Yield what wrong normalizations make of pixels that may be wrong themselves."""
    said, mean, std = contract.input, trained.mean, trained.std
    unit = tuple(value / 255 for value in mean), tuple(value / 255 for value in std)
    expected = f"the checkpoint's training says {numbers(mean, std)}"
    cases: tuple[tuple[str, str, Callable[[Images], Images]], ...] = (
        (
            "the contract's mean and std",
            f"mean/std differ: contract says {numbers(said.mean, said.std)}, {expected}",
            lambda x: _normalized(x, said.mean, said.std),
        ),
        (
            "mean and std in the order blue, green, red",
            f"red and blue are exchanged in mean and std; {expected}",
            lambda x: _normalized(x, mean[::-1], std[::-1]),
        ),
        ("normalization skipped", "raw values 0..255 reach the network: nothing normalizes them", lambda x: x),
        (
            "normalization applied twice",
            "frames are normalized twice, by the runtime and by the graph",
            lambda x: _normalized(_normalized(x, mean, std), mean, std),
        ),
        ("values of 0..1", "frames are divided by 255 and not normalized", lambda x: x / np.float32(255)),
        ("values of -1..1", "frames are scaled to -1..1 and not normalized", lambda x: x / np.float32(127.5) - 1),
        (
            "values of 0..1 normalized as if they were 0..255",
            "frames are divided by 255, and then normalized by mean and std for 0..255",
            lambda x: _normalized(x / np.float32(255), mean, std),
        ),
        (
            "values of 0..255 normalized as if they were 0..1",
            f"mean and std are on the 0..1 scale and the frames on 0..255; {expected}",
            lambda x: _normalized(x, *unit),
        ),
        ("the mean subtracted only", "nothing divides by std", lambda x: _normalized(x, mean, (1.0, 1.0, 1.0))),
        ("the division by std only", "nothing subtracts the mean", lambda x: _normalized(x, (0.0, 0.0, 0.0), std)),
    )
    for words, verdict, make in cases:
        yield Suspect(_joined(base.words, words), _joined(base.verdict, verdict), make(base.image))


def _joined(*texts: str) -> str:
    """Join what is not empty, each once."""
    return " and ".join(dict.fromkeys(text for text in texts if text))


def _wrong_geometry(trained: InputSpec, prepare: Callable[[InputSpec], Images], once: Images) -> Iterator[Suspect]:
    other: ResizeRule = "stretch" if trained.resize == "letterbox" else "letterbox"
    rule = f"the frame is fitted by another rule than the contract's {trained.resize}"
    yield Suspect(f"the resize rule {other}", rule, prepare(dataclasses.replace(trained, resize=other)))
    yield Suspect("the picture mirrored", "the picture is mirrored", once[..., ::-1])
    yield Suspect("the picture upside down", "the picture is upside down", once[:, :, ::-1])
    yield Suspect("the picture one pixel further", "sampling is off by one pixel", np.roll(once, -1, (2, 3)))


def _normalized(raw: Images, mean: tuple[float, ...], std: tuple[float, ...]) -> Images:
    values: Images = ((raw - _column(mean)) / _column(std)).astype(np.float32)
    return values


def _column(values: tuple[float, ...]) -> NDArray[np.float64]:
    return np.asarray(values, np.float64).reshape(1, 3, 1, 1)


def _line(values: Images, raw: Images) -> tuple[float, float, float]:
    """Return the relative error that a line from raw to values leaves, its slope and its shift."""
    x, y = raw.ravel().astype(np.float64), values.ravel().astype(np.float64)
    spread = float(x.var())
    slope = float(((x - x.mean()) * (y - y.mean())).mean()) / spread if spread else 0.0
    shift = float(y.mean()) - slope * float(x.mean())
    left = float(np.linalg.norm(y - slope * x - shift)) / max(float(np.linalg.norm(y)), 1e-30)
    return left, slope, shift


def _triple(values: Iterable[float]) -> Triple:
    red, green, blue = values
    return red, green, blue
