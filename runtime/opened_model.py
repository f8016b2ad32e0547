"""What models of every task have in common once they are opened."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from sfpp.runtime.backends.protocol import Arrays, Backend
from sfpp.runtime.contract import ModelContract, OutputSpec
from sfpp.runtime.errors import ModelFileError

if TYPE_CHECKING:
    from typing_extensions import Self


class OpenedModel:
    """A backend and the contract of the model in it; a context manager that closes the backend.

    Args:
        backend: the opened model.
        contract: what it takes and gives.
        output: the output that answers are made of.
    """

    def __init__(self, backend: Backend, contract: ModelContract, output: OutputSpec) -> None:
        self._backend = backend
        self._contract = contract
        self._output = output

    @property
    def contract(self) -> ModelContract:
        """What the model takes and gives."""
        return self._contract

    @property
    def precision(self) -> str:
        """What the library computes in, as far as it tells: ``fp32``, ``bf16``, ``fp16`` or ``int8``."""
        return self._backend.precision

    def close(self) -> None:
        """Release the model."""
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _named_output(self, outputs: Arrays) -> NDArray[Any]:
        """Return the output that the contract names.

        Raises:
            ModelFileError: there is none of that name.
        """
        if self._output.name not in outputs:
            raise ModelFileError(
                f"the contract promises the output {self._output.name!r}, but the model gives "
                f"{', '.join(outputs) or 'nothing'}; export the model again, or give a contract that fits it"
            )
        return outputs[self._output.name]

    def _misfit(self, values: NDArray[Any], expected: str) -> ModelFileError:
        """Return the error for an output that is not what the contract promises."""
        shape = "x".join(map(str, values.shape))
        return ModelFileError(
            f"the output {self._output.name!r} is {shape} {values.dtype}, expected {expected}; "
            "the contract does not belong to this model: export it again, or give a contract that fits it"
        )
