"""A check of the built pages: that links and anchors within the documentation exist.

Links to other sites are not followed, so that the documentation is built without network.
"""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LINKS = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "src", "iframe": "src"}


class _Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.anchors = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors.update(value for key in ("id", "name") if (value := values.get(key)))
        if link := values.get(_LINKS.get(tag, "")):
            self.links.append(link)


def check(folder: Path) -> tuple[int, list[str]]:
    """Return the number of links within the pages of a folder, and the dead ones, each with its page."""
    folder = folder.resolve()
    pages = {file: _Page(file.read_text(encoding="utf-8")) for file in sorted(folder.rglob("*.html"))}
    number, dead = 0, []
    for file, page in pages.items():
        for link in page.links:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            number += 1
            target = (file.parent / unquote(address.path)).resolve() if address.path else file
            anchors = pages[target].anchors if target in pages else None
            missing = anchors is not None and unquote(address.fragment) not in anchors
            if missing or not target.is_file():
                dead.append(f"{file.relative_to(folder)}: {link}")
    return number, dead


def setup(app) -> dict:
    """Check the links when all pages are written."""
    app.connect("build-finished", _report, priority=900)  # after all that writes files
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _report(app, exception: Exception | None) -> None:
    if exception is not None or app.builder.name != "html":
        return
    from sphinx.util import logging  # here, so that `check` is tested without Sphinx

    log = logging.getLogger(__name__)
    number, dead = check(Path(app.outdir))
    for link in dead:
        log.warning("%s leads nowhere", link)
    log.info("%d links within the pages, %d dead", number, len(dead))
