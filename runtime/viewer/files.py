"""The files of the page, as they are sent."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
INDEX = "index.html"
ICON = "icon.svg"


@dataclass(frozen=True)
class PageFile:
    """A file of the page: its bytes, its type, and a tag that changes with the bytes."""

    body: bytes
    content_type: str
    tag: str


def page_files() -> dict[str, PageFile]:
    """Return all files of the page by name. There are no others to be had, whatever path somebody asks for."""
    return {path.name: _read(path) for path in sorted(_FOLDER.iterdir()) if path.suffix in _TYPES}


def _read(path: Path) -> PageFile:
    body = path.read_bytes()
    return PageFile(body, _TYPES[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:20]}"')
