"""Why FFmpeg could not: its error without its text, since that holds the URL with everything in it."""

from __future__ import annotations

_HINTS = {
    "HTTPUnauthorizedError": "the user name or the password is missing or wrong; write USER:PASSWORD@ before the host, "
    "with %40 for @, %2F for / and %3A for : within them",
    "HTTPForbiddenError": "the server does not allow it; check the user's rights",
    "HTTPNotFoundError": "the server has nothing at that path; check it, with the camera's manual",
    "HTTPServerError": "the server failed; check its own log",
    "ConnectionRefusedError": "nothing listens there; check host and port, and that the camera or server is on",
    "InvalidDataError": "what answers there is no video that FFmpeg knows; check the path",
    "OSError": "check the host's name and that it can be reached",
    "EOFError": "it ended before anything came; check that the camera or server sends",
}
_OVERDUE = ("ExitError", "TimeoutError", "BlockingIOError")
_OVERDUE_HINT = "check that the host can be reached from here, or give it more time with ?timeout=10"
_NEARLY = 0.9


def reason_for(error: Exception, *, timeout_s: float, seconds: float = 0.0) -> str:
    """Return what went wrong, in a few words.

    Args:
        error: what PyAV raised.
        timeout_s: how long the call might have taken.
        seconds: how long it took.
    """
    if _is_overdue(error, timeout_s=timeout_s, seconds=seconds):
        return f"nothing came for {timeout_s:g} s"
    # Only the library's own word for the number: any other text may hold the address.
    words = getattr(error, "strerror", None)
    return str(words).lower() if words and "://" not in str(words) else f"FFmpeg failed ({type(error).__name__})"


def hint_for(error: Exception, *, timeout_s: float, seconds: float = 0.0) -> str:
    """Return what to check, beginning with a semicolon; nothing if there is nothing to say. For arguments see above."""
    if _is_overdue(error, timeout_s=timeout_s, seconds=seconds):
        return f"; {_OVERDUE_HINT}"
    hint = next((_HINTS[kind] for kind in _kinds(error) if kind in _HINTS), None)
    return f"; {hint}" if hint else ""


def _is_overdue(error: Exception, *, timeout_s: float, seconds: float) -> bool:
    """A call whose time is over is an interruption to FFmpeg, and to its RTSP "invalid data"."""
    return bool(set(_kinds(error)).intersection(_OVERDUE)) or seconds >= _NEARLY * timeout_s


def _kinds(error: Exception) -> list[str]:
    return [kind.__name__ for kind in type(error).__mro__]
