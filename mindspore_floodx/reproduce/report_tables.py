"""Tables that were written as HTML files, taken into the page: their cells and words, and nothing else of them."""

from __future__ import annotations

from html.parser import HTMLParser

from markupsafe import Markup, escape

_KEPT = {
    "table",
    "caption",
    "thead",
    "tbody",
    "tfoot",
    "tr",
    "th",
    "td",
    "strong",
    "b",
    "em",
    "i",
    "small",
    "sup",
    "sub",
}
_KEPT |= {"p", "ul", "ol", "li", "h2", "h3", "br"}
_DROPPED = {"script", "style", "head", "title", "template"}  # with what is in them
_ATTRIBUTES = {"scope", "colspan", "rowspan"}
_WITHOUT_END = {"br"}


def only_table(text: str) -> Markup:
    """Returns the tables of an HTML file, and the text around them, without scripts, styles, links and attributes.

    Every word is escaped anew, so what was text in the file is text in the page.
    """
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return Markup("").join([*reader.parts, *(Markup(f"</{tag}>") for tag in reversed(reader.open))])  # noqa: S704


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[Markup] = []
        self.open: list[str] = []
        self._dropping = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in _DROPPED:
            self._dropping += 1
        if tag not in _KEPT or self._dropping:
            return
        kept = [Markup(' {}="{}"').format(name, value) for name, value in attributes if name in _ATTRIBUTES and value]
        self.parts.append(Markup("<{}{}>").format(tag, Markup("").join(kept)))
        if tag not in _WITHOUT_END:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in _DROPPED:
            self._dropping = max(0, self._dropping - 1)
        if tag in self.open and not self._dropping:  # elements that were left open end with it
            while True:
                last = self.open.pop()
                self.parts.append(Markup("</{}>").format(last))
                if last == tag:
                    break

    def handle_data(self, data: str) -> None:
        if not self._dropping:
            self.parts.append(escape(data))
