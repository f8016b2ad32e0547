"""The self-test of a file of lower precision: float32's, with what may be asked of this file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx

from sfpp.calibration.graph import write_model
from sfpp.calibration.judging.examination import JUDGE
from sfpp.runtime.contract import ModelContract, SelfTest
from sfpp.runtime.model_file import load
from sfpp.runtime.self_test import self_test, threshold_for


def fitted_self_test(model: onnx.ModelProto, contract: ModelContract, folder: Path) -> SelfTest | None:
    """Return the contract's self-test with a threshold that suits the model; None where it has none.

    The answer that is expected stays that of float32. How much of it a quantized network gives depends on the network,
    so it is asked, where it computes what the file says.

    Args:
        model: the graph of lower precision.
        contract: its contract, with the self-test of the float32 file.
        folder: for a file that nobody keeps.

    Raises:
        BackendError: the model does not run, or answers with NaN.
        ContractError: the self-test is damaged.
    """
    if contract.self_test is None:
        return None
    path = folder / "self-test.onnx"
    write_model(model, contract, path)
    try:
        with load(path, backend=JUDGE.name, precision=JUDGE.precision, self_test=False) as opened:
            seen = self_test(opened)
    finally:
        path.unlink()
    threshold = min(contract.self_test.threshold, threshold_for(contract, seen.agreement))
    return replace(contract.self_test, threshold=threshold)
