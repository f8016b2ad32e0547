"""Opening a model file: its contract and a backend, together a :class:`Segmenter` or a :class:`PoseEstimator`."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from sfpp.runtime.backends import Backend, BackendOptions, Choice, Notify, Precision, backend_choices
from sfpp.runtime.backends.protocol import Schedule, TensorInfo
from sfpp.runtime.contract import (
    METADATA_KEY,
    InputSpec,
    ModelContract,
    contract_from_json,
    contract_from_metadata,
    read_contract_file,
)
from sfpp.runtime.errors import ContractError, SfppError, UsageError
from sfpp.runtime.model import OpenedModel
from sfpp.runtime.onnx_file import metadata_of
from sfpp.runtime.pose import PoseEstimator
from sfpp.runtime.segmentation import Segmenter
from sfpp.runtime.self_test import first_that_answers
from sfpp.runtime.tensorrt.sidecar import SUFFIXES, sidecar_of

_Opened = TypeVar("_Opened", Segmenter, PoseEstimator)
_Options = ParamSpec("_Options")
_INSTEAD = "in Python: load(path, contract=read_contract_file('facts.json'))"


def load(
    path: str | os.PathLike[str],
    *,
    contract: ModelContract | None = None,
    backend: str | None = None,
    precision: Precision | None = None,
    threads: int | None = None,
    build: bool = True,
    host_code: bool = False,
    schedule: Schedule | None = None,
    zero_copy: bool = True,
    flip_test: bool = False,
    self_test: bool = True,
    notify: Notify | None = None,
) -> OpenedModel[Any]:
    """Open a model file that sfpp-export wrote, or any ONNX file together with a contract.

    The contract's task decides what comes back: a :class:`Segmenter` or a :class:`PoseEstimator`. Where a type checker
    should know which, :func:`load_segmenter` and :func:`load_pose` take the same arguments and accept that task only.

    Which backend was chosen, and why, goes to the logger ``sfpp`` at level INFO; a device that was asked for and is
    not used, at level WARNING.

    A model replays the self-test that its file carries the first time that it runs with a backend, version, precision,
    kind of CPU and card. Where it fails, the next backend that suits takes over, and a warning says so; one that was
    asked for stays, with a warning each time. ``self_test`` of what is returned says how it came out.

    Args:
        path: the .onnx file, or an engine that sfpp-engine built from one.
        contract: what the model takes and gives; None reads it from the file. A given one wins over the file's.
        backend: "openvino", "onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt" or "tensorrt-rtx";
            None chooses by what the file was exported for and what this machine has.
        precision: what is computed in: "fp32", "bf16" or "fp16"; None computes as the CPU does it best (bfloat16 where
            it is native and the backend can), or as the graph says. Answers are exactest in "fp32".
        threads: threads within an operator; None leaves the choice to the backend.
        build: let TensorRT build an engine of an ONNX file the first time, which takes minutes; it is kept.
        host_code: let an engine that has no contract beside it bring code along, as version-compatible ones do; it runs
            in this process, so only of a file that you trust.
        schedule: how TensorRT waits for the card: "spin" is soonest and takes a core, "blocking" leaves the core to
            others; None leaves the choice to CUDA. The first model of a process decides.
        zero_copy: let TensorRT work in the processor's memory on a card that has none of its own, as on a Jetson;
            without, it copies, for comparison.
        flip_test: for a pose model, average with the answer for the mirrored person; see :class:`PoseEstimator`.
        self_test: replay the file's self-test on first use; without, any backend is trusted.
        notify: called with the same lines as the logger, for a command to print.

    Raises:
        ModelFileError: the file does not exist or no backend can open it.
        ContractError: the file carries no contract and none is given, or its contract is malformed, too new, or another
            model's.
        MissingDependencyError: the backend's library is not installed.
        BackendError: the backend cannot run what the file was exported for, or its device is not there.
        SelfTestError: no backend here answers as the model did when it was exported, and none was asked for.
        UsageError: an unknown backend, a precision that it does not have here, fewer than one thread, or a flip test
            with a segmentation model.
    """
    file = Path(path)
    options = BackendOptions(
        threads=threads,
        precision=precision,
        build=build,
        host_code=host_code,
        schedule=schedule,
        zero_copy=zero_copy,
    )
    target = None if contract is None else contract.target
    choices = backend_choices(file, backend=backend, options=options, target=target)

    def open_with(choice: Choice) -> tuple[Segmenter | PoseEstimator, str]:
        opened, reason = choice.open(notify)
        try:
            facts = contract or contract_from_metadata(opened.metadata, origin=file.name, instead=_INSTEAD)
            _check_input(opened.inputs, facts.input, file)
            if facts.input.open_batch and opened.inputs[0].shape[0] is not None:  # an engine is of one size
                facts = replace(facts, input=replace(facts.input, open_batch=False))
            return _model(opened, facts, flip_test=flip_test), reason
        except BaseException:
            opened.close()
            raise

    model, _ = first_that_answers(
        file, choices, open_with, model_of=lambda model: model, replay=self_test, notify=notify
    )
    return model


def _loading(
    name: str, kind: type[_Opened], other: str, load_any: Callable[_Options, OpenedModel[Any]]
) -> Callable[_Options, _Opened]:
    @functools.wraps(load_any, assigned=("__module__",))  # the signature is the same
    def load_one(*arguments: _Options.args, **options: _Options.kwargs) -> _Opened:
        """Open a model of this task; the arguments, and what is raised, are those of :func:`load`.

        Raises:
            UsageError: the model does something else.
        """
        model = load_any(*arguments, **options)
        if isinstance(model, kind):
            return model
        model.close()
        path = arguments[0] if arguments else options["path"]
        raise UsageError(f"{path} is a {model.contract.task} model: open it with {other}, or with load")

    load_one.__name__ = load_one.__qualname__ = name
    return load_one


load_segmenter = _loading("load_segmenter", Segmenter, "load_pose", load)
load_pose = _loading("load_pose", PoseEstimator, "load_segmenter", load)


def contract_of(path: str | os.PathLike[str]) -> ModelContract | None:
    """Return the contract that a file carries, or an engine has beside it, read without any library.

    None where there is none, or none that can be read; opening the file then says why.
    """
    file = Path(path)
    with contextlib.suppress(SfppError):
        if file.suffix in SUFFIXES:
            return read_contract_file(sidecar_of(file))
        metadata = metadata_of(file)
        return contract_from_json(metadata[METADATA_KEY], origin=file.name) if METADATA_KEY in metadata else None
    return None


def _model(backend: Backend, contract: ModelContract, *, flip_test: bool) -> Segmenter | PoseEstimator:
    if contract.task == "pose":
        return PoseEstimator(backend, contract, flip_test=flip_test)
    if flip_test:
        raise UsageError(f"the flip test is for pose models, and this is a {contract.task} model; leave it off")
    return Segmenter(backend, contract)


def _check_input(inputs: Sequence[TensorInfo], spec: InputSpec, file: Path) -> None:
    """Refuse a contract of another model, before a library does in its own words; sizes that are open fit any."""
    told = TensorInfo(spec.name, spec.shape, spec.dtype)
    if [(each.name, each.dtype, each.fits(spec.shape)) for each in inputs] != [(told.name, told.dtype, True)]:
        taken = " and ".join(f"{each.name!r}, {each.dtype} of {each.size}" for each in inputs) or "nothing"
        raise ContractError(
            f"{file.name} takes {taken}, but its contract says {told.name!r}, {told.dtype} of {told.size}; give the "
            "contract of this model"
        )
