"""Follows the links of a built site, and looks for anything that a page would load from the network."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADING = {("script", "src"), ("img", "src"), ("iframe", "src"), ("link", "href"), ("source", "src"), ("image", "href")}


class Page(HTMLParser):
    """The anchors of a page, and what it links to or loads: (address, whether it is loaded)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[tuple[str, bool]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect one tag's."""
        given = dict(attrs)
        self.anchors |= {value for name in ("id", "name") if (value := given.get(name))}
        for name in ("href", "src"):
            value = given.get(name)
            if value and not value.startswith(("data:", "mailto:", "javascript:")):
                loads = (tag, name) in LOADING and given.get("rel") not in ("canonical",)
                self.links.append((value, loads))


def check(site: Path) -> list[str]:
    """A line for every link that leads nowhere and everything that comes from the network; none if all is well."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        for address, loads in page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if loads:
                    found.append(f"{path.relative_to(site)} loads {address}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                found.append(f"{path.relative_to(site)} links to {address}, which does not exist")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{path.relative_to(site)} links to {address}, which has no such place")
    for path in sorted(site.rglob("*.css")):
        for address in re.findall(r"""(?:@import\s+|url\()["']?((?:https?:)?//[^"')]+)""", path.read_text("utf-8")):
            found.append(f"{path.relative_to(site)} loads {address}")
    return found
