"""Read the pages of the service in tests."""

import re
from html.parser import HTMLParser


class Elements(HTMLParser):
    """The elements of a page with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]

    def values(self, *names: str) -> list[str]:
        return [value for _, attributes in self.found for name in names if (value := attributes.get(name)) is not None]


def text_of(html: str) -> str:
    """Return a page's text with single spaces."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())
