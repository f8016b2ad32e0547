"""Where a model's time goes, operator by operator."""

from __future__ import annotations

from sfpp.runtime.bench.opened import OpenedModel

# The first run is slower than the others, and is part of the mean that a library reports.
_RUNS = 5


def operator_times_ms(model: OpenedModel) -> dict[str, float]:
    """Run a model that was opened with ``profile=True``; return the mean milliseconds a run by operator type.

    Raises:
        BackendError: the model failed.
        UsageError: it was opened without a profile.
    """
    prepared = model.prepare()  # once: only the library's own operators are profiled
    for _ in range(_RUNS):
        model.infer(prepared)
    return model.backend.operator_times_ms()
