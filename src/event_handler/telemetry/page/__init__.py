"""The files of the status page, which come from here and from no other host."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

KINDS = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
}


@cache
def page_file(name: str) -> tuple[bytes, str] | None:
    """A file of the page and its content type, None when there is none of that name."""
    if name not in KINDS:
        return None
    return files(__package__).joinpath(name).read_bytes(), KINDS[name]
