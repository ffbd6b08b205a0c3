"""HTML from Python values: what is text is escaped, what is markup is not."""

from __future__ import annotations

from html import escape

Attribute = str | int | float | bool | None


class Html(str):
    """Markup that is final."""

    __slots__ = ()


def element(tag: str, *content: str | int | float | None, **attributes: Attribute) -> Html:
    """An element: strings inside are escaped unless they are Html, None is left out.

    Attributes are spelled as in Python: `class_` and `data_label` become class and data-label;
    True is an attribute with an empty value, None and False are none.
    """
    return Html(f"<{tag}{_attributes(attributes)}>{join(*content)}</{tag}>")


def void(tag: str, **attributes: Attribute) -> Html:
    """An element without content or end tag: meta, rect, line ..."""
    return Html(f"<{tag}{_attributes(attributes)}/>")


def join(*content: str | int | float | None) -> Html:
    """Markup one after the other; strings are escaped, None is left out."""
    return Html("".join(c if isinstance(c, Html) else escape(str(c)) for c in content if c is not None))


def _attributes(attributes: dict[str, Attribute]) -> str:
    parts = []
    for name, value in attributes.items():
        spelled = name if name in _CAMEL else name.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(f' {spelled}=""')
        elif value is not None and value is not False:
            parts.append(f' {spelled}="{escape(str(value))}"')
    return "".join(parts)


_CAMEL = ("viewBox", "preserveAspectRatio")
