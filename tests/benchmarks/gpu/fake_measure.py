"""Stands in for the process that measures: one contestant hangs, one ends the process, one is fine."""

import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path

from benchmarks.gpu.matrix import Group
from benchmarks.gpu.results import read_gpu_results
from sfpp.runtime.timing import summarize

GROUP = Group("b0", "128x128", "fp16", ("hangs", "dies", "fine"))


def main(text):
    path = Path(json.loads(text)["results"])
    results = read_gpu_results(path)
    results.facts["device"] = {"card": "A Card"}
    for name in GROUP.names:
        if results.row(GROUP, name).is_final:
            continue
        print(f"{GROUP.title}: {name}", flush=True)
        if name == "hangs":
            time.sleep(1000)
        if name == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        results.put(dataclasses.replace(results.row(GROUP, name), time=summarize([1.0])))
        results.write(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
