"""What the library says when something fails."""

from __future__ import annotations

from typing import Any

_SHOWN = 8


def keeping_logger(module: Any, messages: list[str]) -> Any:
    """Return a logger that keeps errors in a list; it must live as long as what was made with it."""

    class Logger(module.ILogger):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (module.ILogger.INTERNAL_ERROR, module.ILogger.ERROR):
                messages.append(" ".join(message.split()))

    return Logger()


def told(messages: list[str]) -> str:
    """Return what was said of a failure, the first words first: later ones mostly follow from them."""
    shown = list(dict.fromkeys(messages))[:_SHOWN]
    return "; ".join(shown) or "it does not say why"
