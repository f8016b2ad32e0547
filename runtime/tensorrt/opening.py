"""From an engine's file to what runs it: the engine, its tensors, and a context."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from sfpp.runtime.backends.protocol import TensorInfo
from sfpp.runtime.cache import compiled_models_folder
from sfpp.runtime.errors import BackendError, ModelFileError, SfppError, UsageError
from sfpp.runtime.files import whole_file
from sfpp.runtime.tensorrt.library import Library, joined

_PART_BYTES = 1 << 26  # of a file that is held in memory beside the library's own copy
_WHENCE = {"SET": os.SEEK_SET, "CUR": os.SEEK_CUR, "END": os.SEEK_END}
_FOR_OUR_TENSORS = "build it from the ONNX file with sfpp-engine, whose inputs and outputs are plain arrays"


def deserialized(
    library: Library, logger: Any, path: Path, messages: list[str], *, host_code: bool, dla: int | None
) -> Any:
    """Return the engine in a file.

    Args:
        library: what runs it; there must be a card, or the lean runtime ends the process.
        logger: writes into ``messages``.
        path: the file.
        messages: what the library says of it.
        host_code: let the engine bring code along, which runs in this process.
        dla: the deep learning accelerator that it is for, None for the GPU.

    Raises:
        ModelFileError: the file cannot be read.
        UsageError: there is no such accelerator here.
        BackendError: the library does not load it.
    """
    runtime = library.module.Runtime(logger)
    if host_code:
        # A version-compatible engine brings a part of the library with it, as code.
        runtime.engine_host_code_allowed = True
    if dla is not None:
        # Else the library takes whichever comes first, whatever the engine was built for.
        if runtime.num_DLA_cores <= dla:
            raise UsageError(
                f"{path.name} is for the deep learning accelerator {dla}, and {library.title} {library.version} finds "
                f"{runtime.num_DLA_cores} on this machine; build it again without --dla, or with a smaller number"
            )
        runtime.DLA_core = dla
    try:
        with path.open("rb") as file:
            engine = runtime.deserialize_cuda_engine(_readable(library, file))
    except OSError as error:
        raise ModelFileError(f"cannot read the engine {path}: {error.strerror or error}") from error
    if engine is None:
        code = (
            ""
            if host_code
            else "; a version-compatible one brings code along, which is to be allowed where you trust the file "
            "(--allow-host-code, in Python load(..., host_code=True))"
        )
        raise BackendError(
            f"{library.title} {library.version} does not load {path.name}: {joined(messages)}; an engine runs only "
            "with the version and the kind of card that it was built with: build it again with sfpp-engine on this "
            f"machine{code}"
        )
    return engine


def _readable(library: Library, file: IO[bytes]) -> Any:
    """Return what the library reads an engine from: the file in parts where it can, which halves the memory."""
    if not hasattr(library.module, "IStreamReaderV2"):  # TensorRT 10.3 lacks it
        return file.read()

    class Reader(library.module.IStreamReaderV2):  # type: ignore[misc, name-defined]  # the library has no types
        def __init__(self) -> None:
            library.module.IStreamReaderV2.__init__(self)

        def read(self, num_bytes: int, stream: int) -> bytes:
            return file.read(min(num_bytes, _PART_BYTES))  # the library asks for the rest

        def seek(self, offset: int, where: Any) -> bool:
            file.seek(offset, _WHENCE[where.name])
            return True

    return Reader()


def tensor_of(library: Library, engine: Any, name: str) -> TensorInfo:
    """Return what an input or output of an engine is, if it is an array as NumPy has them, in the card's memory.

    Raises:
        ModelFileError: it is not: its size is open, NumPy lacks its type, its values are padded or interleaved, or it
            is a shape, which is read on the processor.
    """
    shape = tuple(int(size) for size in engine.get_tensor_shape(name))
    if min(shape, default=1) < 0:
        raise ModelFileError(
            f"the engine's {name!r} has no fixed size {shape}; build it from a model of one size, as sfpp-export "
            "writes it"
        )
    if engine.get_tensor_location(name) == library.module.TensorLocation.HOST:
        raise ModelFileError(f"the engine's {name!r} is a shape, which the processor reads; {_FOR_OUR_TENSORS}")
    if not _is_linear(library, engine, name):
        raise ModelFileError(f"the engine's {name!r} is no plain array: {_format_of(engine, name)}; {_FOR_OUR_TENSORS}")
    kind = engine.get_tensor_dtype(name)
    try:
        return TensorInfo(name, shape, np.dtype(library.module.nptype(kind)).name)
    except TypeError as error:
        raise ModelFileError(
            f"the engine's {name!r} holds {kind.name}, which NumPy lacks; {_FOR_OUR_TENSORS}"
        ) from error


def _is_linear(library: Library, engine: Any, name: str) -> bool:
    formats = getattr(library.module, "TensorFormat", None)
    if formats is None:  # the lean runtime has no names for them, but describes them
        return int(engine.get_tensor_vectorized_dim(name)) < 0 and "HWC" not in _format_of(engine, name)
    return bool(engine.get_tensor_format(name) == formats.LINEAR)


def _format_of(engine: Any, name: str) -> str:
    return " ".join(str(engine.get_tensor_format_desc(name)).split())


def execution_context(
    library: Library, engine: Any, path: Path, *, keep: bool
) -> tuple[Any, Callable[[], object] | None]:
    """Return an execution context, and what keeps the kernels that it compiles, if there are any to keep.

    TensorRT's engines hold their kernels already; TensorRT-RTX takes them from a cache, and puts new ones there.

    Raises:
        BackendError: there is not enough memory on the card.
    """
    if not library.is_rtx:
        return _created(library, engine.create_execution_context()), None
    config = engine.create_runtime_config()
    config.cuda_graph_strategy = library.module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    options = {"version": library.version}
    folder = compiled_models_folder(path, library=library.name, options=options) if keep else None
    if folder is None:
        return _created(library, engine.create_execution_context(config)), None
    file, cache = folder / "kernels.bin", config.create_runtime_cache()
    known = file.read_bytes() if file.is_file() else b""
    if known:
        cache.deserialize(known)  # one of another card or driver is refused, and made anew
    config.set_runtime_cache(cache)

    def store() -> None:
        compiled = bytes(cache.serialize())
        # What cannot be written is compiled again next time.
        with contextlib.suppress(SfppError, OSError):
            if compiled != known:
                with whole_file(file) as temporary:
                    temporary.write_bytes(compiled)

    return _created(library, engine.create_execution_context(config)), store


def _created(library: Library, context: Any) -> Any:
    if context is None:
        raise BackendError(
            f"{library.title} has no execution context for this engine, most likely because the card's memory is "
            "full; close other programs on it, or take a smaller input size"
        )
    return context
