"""What models of every task have in common once they are opened."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from sfpp.runtime.backends.protocol import Arrays, Backend
from sfpp.runtime.contract import ModelContract, OutputSpec
from sfpp.runtime.errors import ModelFileError

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class SelfTestState:
    """Whether a model is known to answer here as it did when it was exported.

    Attributes:
        outcome: ``passed``, now or earlier with the same file, library, precision, processor and card; ``failed``;
            ``damaged``, so that it could not be replayed; ``not carried`` by the file; ``off``: nobody asked.
        agreement: the share, 0..1, of labels or keypoints that are as expected; None where it was not replayed now.
        detail: a sentence about it; empty where there is nothing to add.
    """

    outcome: Literal["passed", "failed", "damaged", "not carried", "off"]
    agreement: float | None = None
    detail: str = ""

    def __str__(self) -> str:
        """The outcome, of a failure with the agreement: ``failed (51.97%)``."""
        shown = self.outcome == "failed" and self.agreement is not None
        return f"{self.outcome} ({self.agreement:.2%})" if shown else self.outcome


class OpenedModel:
    """A backend and the contract of the model in it; a context manager that closes the backend.

    Args:
        backend: the opened model.
        contract: what it takes and gives.
        output: the output that answers are made of.

    Attributes:
        self_test: how the self-test came out when the model was loaded.
    """

    def __init__(self, backend: Backend, contract: ModelContract, output: OutputSpec) -> None:
        self.self_test = SelfTestState("off")
        self._backend = backend
        self._contract = contract
        self._output = output

    @property
    def contract(self) -> ModelContract:
        """What the model takes and gives."""
        return self._contract

    @property
    def library(self) -> str:
        """Library, version and device that run it, in a few words for people."""
        return self._backend.description

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
