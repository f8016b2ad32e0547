"""parity(): a model file against PyTorch, on real frames."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from sfpp.export.parity.campaign import Campaign, Modes
from sfpp.export.parity.frames import Frames, chunks
from sfpp.export.parity.opening import STRICTEST, Wish, opened_sides
from sfpp.export.parity.report import AgreementReport
from sfpp.runtime.backends import BackendOptions, Precision
from sfpp.runtime.contract import ModelContract
from sfpp.runtime.errors import UsageError


def parity(
    model: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    images: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    ignore: int = 255,
    frames: int = 8,
    mode: Modes = "both",
    backend: str = STRICTEST,
    precision: Precision | None = None,
    threads: int | None = None,
    contract: ModelContract | None = None,
    notify: Callable[[str], object] = lambda line: None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> AgreementReport:
    """Compare a model file with the PyTorch network that it was made from.

    PyTorch is rebuilt from the checkpoint, and prepares frames as the checkpoint was trained; the file runs as the
    runtime would run it. Where the graph's nodes have the names that sfpp-export gives them, every part of the network
    is compared too: in step, so that each part is judged by what it adds to the error itself.

    Args:
        model: the file that sfpp-export or sfpp-calibrate wrote, of any precision and target.
        weights: the checkpoint that it was exported from; None takes a demonstration model's.
        images: an image, a folder of images or a video; None takes a picture that comes with sfpp.
        labels: a folder with a label picture (PNG, class numbers) for each frame, by its name; for the accuracy of both
            sides against them.
        ignore: the value in label pictures of pixels that do not count.
        frames: how many frames, spread evenly over the source.
        mode: for variants that match tokens: ``free``, each side matches by itself; ``pinned``, PyTorch takes the
            graph's matching; or ``both``. Without matching there is only ``free``.
        backend: what runs the file: a backend's name, or ``auto`` for what the runtime would choose.
        precision: what the backend computes in; None leaves the choice to it.
        threads: threads within an operator.
        contract: what the file takes and gives; None reads it from the file.
        notify: called with lines that say what is done and what is odd.
        progress: called with the number of frames done and the number of frames there are, as far as it is known.

    Returns:
        What was found; ``report.agrees`` is the verdict and ``report.place`` says where it goes wrong first.

    Raises:
        UsageError: an option that cannot be meant, or weights of another kind of network.
        ModelFileError, ContractError: the file cannot be opened.
        CheckpointError: the weights cannot be read.
        MediaError: the frames or label pictures cannot be read.
        BackendError, MissingDependencyError: the backend is not there, or fails.
        MemoryShortageError: there is less memory than comparing takes.
    """
    _check_options(mode, frames, ignore)
    start = time.perf_counter()
    origin = None if weights is None else os.fspath(weights)
    wish = Wish(Path(model), origin, contract, backend, BackendOptions(threads=threads, precision=precision))
    with opened_sides(wish, notify) as opened:
        campaign = Campaign(opened, mode=mode, labels=labels, ignore=ignore)
        chosen = Frames(images, count=frames, task=campaign.contract.task, notify=notify)
        done = 0
        progress(0, chosen.total)
        for batch in chunks(iter(chosen), opened.sides.file.batch):
            campaign.take(batch)
            done += len(batch)
            progress(done, chosen.total)
        return campaign.report(wish.model, source=chosen.source, seconds=time.perf_counter() - start)


def _check_options(mode: str, frames: int, ignore: int) -> None:
    if mode not in get_args(Modes):
        raise UsageError(f"mode is {mode!r}, expected one of {', '.join(get_args(Modes))}")
    if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1:
        raise UsageError(f"frames is {frames!r}, expected a whole number from 1")
    if isinstance(ignore, bool) or not isinstance(ignore, int) or not 0 <= ignore <= 255:
        raise UsageError(f"ignore is {ignore!r}, expected a whole number from 0 to 255")
