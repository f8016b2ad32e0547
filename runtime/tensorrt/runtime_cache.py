"""What TensorRT-RTX compiles on the card, kept from one run to the next: the first run of an engine takes seconds."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from sfpp.runtime.cache import compiled_models_folder
from sfpp.runtime.errors import BackendError, SfppError
from sfpp.runtime.files import whole_file
from sfpp.runtime.tensorrt.library import Library


class RuntimeCache:
    """The compiled kernels of an engine; for TensorRT, whose engines hold them already, there is nothing to keep.

    Args:
        library: the library.
        engine: deserialized.
        path: its file.
        keep: whether to keep anything on disk.
    """

    def __init__(self, library: Library, engine: Any, path: Path, *, keep: bool) -> None:
        self._library = library
        self._engine = engine
        self._file: Path | None = None
        self._cache: Any = None
        self._known = b""
        if keep and library.is_rtx:
            folder = compiled_models_folder(path, library=library.name, options={"version": library.version})
            self._file = None if folder is None else folder / "kernels.bin"

    def context(self) -> Any:
        """Return an execution context that takes kernels from the cache and puts new ones there.

        Raises:
            BackendError: there is not enough memory on the card.
        """
        if not self._library.is_rtx:
            return self._created(self._engine.create_execution_context())
        config = self._engine.create_runtime_config()
        config.cuda_graph_strategy = self._library.module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if self._file is not None:
            self._cache = config.create_runtime_cache()
            self._known = self._file.read_bytes() if self._file.is_file() else b""
            if self._known:
                self._cache.deserialize(self._known)  # one of another card or driver is refused, and made anew
            config.set_runtime_cache(self._cache)
        return self._created(self._engine.create_execution_context(config))

    def store(self) -> None:
        """Keep what was compiled; where that cannot be written, it is compiled again next time."""
        if self._cache is None or self._file is None:
            return
        compiled = bytes(self._cache.serialize())
        self._cache = None
        if compiled != self._known:
            with contextlib.suppress(SfppError, OSError), whole_file(self._file) as temporary:
                temporary.write_bytes(compiled)

    def _created(self, context: Any) -> Any:
        if context is None:
            raise BackendError(
                f"{self._library.title} has no execution context for this engine, most likely because the card's "
                "memory is full; close other programs on it, or take a smaller input size"
            )
        return context
