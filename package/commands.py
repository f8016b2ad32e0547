"""Where the commands begin: Ctrl-C ends one that is still loading without a word; then it hears by itself."""

import functools
import importlib
import signal


def _begun(module: str, function: str) -> int:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    code: int = getattr(importlib.import_module(module), function)()
    return code


bench = functools.partial(_begun, "sfpp.runtime.bench.cli", "main")
calibrate = functools.partial(_begun, "sfpp.calibration.cli", "command")
engine = functools.partial(_begun, "sfpp.export.engine", "main")
export = functools.partial(_begun, "sfpp.export.cli", "command")
parity = functools.partial(_begun, "sfpp.export.parity.cli", "command")
run = functools.partial(_begun, "sfpp.runtime.cli.run", "main")
