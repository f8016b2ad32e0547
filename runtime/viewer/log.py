"""What the viewer logs: its own failures, never a token, and nothing of the nonsense that strangers send to ports."""

from __future__ import annotations

import logging

from aiohttp import http_exceptions


def viewer_logger(token: str | None) -> logging.Logger:
    """Return a logger below ``sfpp`` whose records do not have the token in them.

    It is not registered by its name: two viewers in a program have a token each.
    """
    logger = logging.Logger("sfpp.viewer", logging.WARNING)
    logger.parent = logging.getLogger("sfpp")
    logger.addFilter(_is_of_interest)
    if token is not None:
        logger.addFilter(Redacting(token))
    return logger


class Redacting(logging.Filter):
    """Takes the token out of whatever is logged: libraries quote what they were sent, in messages and tracebacks."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self._token = token

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the token in the record, its traceback included."""
        if record.exc_info:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
            record.exc_info = None
        record.msg, record.args = self._redacted(record.getMessage()), ()
        record.exc_text = record.exc_text and self._redacted(record.exc_text)
        return True

    def _redacted(self, text: str) -> str:
        return text.replace(self._token, "[token]")


def _is_of_interest(record: logging.LogRecord) -> bool:
    """Whether it tells of more than a request that is no HTTP, or a browser that has gone before its answer."""
    others_doing = http_exceptions.HttpProcessingError, ConnectionError
    return not (record.exc_info and isinstance(record.exc_info[1], others_doing))
