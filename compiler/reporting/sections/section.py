"""What all sections share: a heading to link to, and the sentence that stands where there are no figures."""

from __future__ import annotations

from ..markup import Html, element


def section(key: str, title: str, *content: Html | None) -> Html:
    name = f"{key}-heading"
    return element("section", element("h2", title, id=name), *content, id=key, aria_labelledby=name)


def paragraph(text: str) -> Html:
    return element("p", text)


def missing(text: str, command: str | None = None) -> Html:
    """What was not measured or given, and how to get it."""
    return element("p", text, *(() if command is None else (" ", element("code", command))), class_="no")
