"""Plain PyTorch with the attention written out, as an opened model beside the others.

    python -m benchmarks.speed.pytorch REQUEST    (JSON of an EagerRequest; prints the peak memory of its process)

Imports nothing of the export: what that loads would count as PyTorch's memory.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from sfpp.runtime.backends import Arrays, FunctionBackend
from sfpp.runtime.bench.measured_model import BenchFrame, MeasuredModel, with_frame
from sfpp.runtime.bench.memory import module_peak_bytes, process_peak_bytes
from sfpp.runtime.contract import contract_from_json
from sfpp.runtime.errors import BackendError


@dataclass(frozen=True)
class EagerRequest:
    """A Transformers folder, the contract of its model (JSON), and whether it runs in bfloat16."""

    checkpoint: str
    contract: str
    autocast: bool


def open_eager(request: EagerRequest, picture: BenchFrame) -> MeasuredModel:
    """Load the library's model with eager attention, which holds the whole score matrix and its softmax.

    In bfloat16 it runs under autocast, which is how PyTorch's users get there: products in bfloat16, softmax and norms
    in float32.
    """
    start = time.perf_counter()
    contract = contract_from_json(request.contract)
    model = library_model(Path(request.checkpoint), attention="eager")

    def run(inputs: Arrays) -> dict[str, NDArray[Any]]:
        pixels = torch.from_numpy(inputs[contract.input.name])
        try:
            with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=request.autocast):
                logits = model(pixel_values=pixels).logits
        except RuntimeError as error:  # out of memory, as a rule
            raise BackendError(f"PyTorch failed: {str(error).splitlines()[0]}") from error
        return {contract.outputs[0].name: logits.float().numpy()}

    backend = FunctionBackend(
        run, metadata={}, description=f"PyTorch {torch.__version__}", precision="bf16" if request.autocast else "fp32"
    )
    return with_frame(backend, contract, picture, load_ms=(time.perf_counter() - start) * 1e3)


def library_model(checkpoint: Path, *, attention: Literal["eager", "sdpa"]) -> Any:
    """Return the library's model in evaluation mode, its attention written out or PyTorch's fused one."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = transformers.SegformerForSemanticSegmentation.from_pretrained(checkpoint, attn_implementation=attention)
    return model.eval()


def eager_peak_bytes(request: EagerRequest, frame: Path) -> int:
    """Return the peak memory of a fresh process that loads the model and runs it twice on ``frame``, a ``.npy`` file.

    Raises:
        BackendError: the process failed or was killed.
    """
    return module_peak_bytes("benchmarks.speed.pytorch", json.dumps(asdict(request)), str(frame))


def main(arguments: list[str]) -> None:
    """Be that process."""
    text, frame = arguments
    model = open_eager(EagerRequest(**json.loads(text)), BenchFrame(np.load(frame), fitted=True))
    for _ in range(2):
        model.run()
    print(process_peak_bytes())


if __name__ == "__main__":
    main(sys.argv[1:])
