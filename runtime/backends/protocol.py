"""What the runtime asks of an inference library: run named arrays, close."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


class Backend(Protocol):
    """An opened model."""

    @property
    def description(self) -> str:
        """Library, version and device, for people."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Key-value pairs stored in the model file; the contract is among them."""

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run the model once: arrays by input name in, arrays by output name out.

        Raises:
            BackendError: a name, shape or type that the model does not take, or a failure in the library.
        """

    def close(self) -> None:
        """Release the model; running it afterwards is an error."""


@dataclass(frozen=True)
class FunctionBackend:
    """A plain function in the place of a library: for tests, and for models that are not files."""

    function: Callable[[Arrays], dict[str, NDArray[Any]]]
    metadata: Mapping[str, str]
    description: str = "python function"

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Call the function."""
        return self.function(inputs)

    def close(self) -> None:
        """Nothing to release."""
