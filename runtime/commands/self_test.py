"""`sfpp-run --self-test`: does the model answer here as it did when it was exported?"""

from __future__ import annotations

from sfpp.runtime.self_test import Model, self_test


def passes_self_test(model: Model) -> bool:
    """Replay the model's own frame, print how that came out, and return whether it is as expected.

    Raises:
        UsageError: the model carries no self-test.
        ContractError, BackendError, ModelFileError: as for :func:`sfpp.runtime.self_test.self_test`.
    """
    result = self_test(model)
    print(result.text())
    return result.passed
