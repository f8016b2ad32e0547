"""Models and backends measured side by side: ``sfpp-bench`` and the function behind it.

from sfpp.runtime.bench import bench
report = bench(["a.onnx", "b.onnx"], backends=["onnxruntime", "openvino:bf16"])
print(report.table())
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfpp.runtime.imports import lazy_names

if TYPE_CHECKING:
    from sfpp.runtime.bench.report import BenchReport as BenchReport
    from sfpp.runtime.bench.rounds import bench as bench
    from sfpp.runtime.bench.row import Row as Row, Speedup as Speedup
    from sfpp.runtime.bench.settings import BackendSpec as BackendSpec, BenchSettings as BenchSettings
    from sfpp.runtime.timing import Summary as Summary

__getattr__, __all__ = lazy_names(
    __name__,
    {
        "sfpp.runtime.bench.report": "BenchReport",
        "sfpp.runtime.bench.rounds": "bench",
        "sfpp.runtime.bench.row": "Row Speedup",
        "sfpp.runtime.bench.settings": "BackendSpec BenchSettings",
        "sfpp.runtime.timing": "Summary",
    },
)
