"""HTML and SVG as text that can't be broken out of: what is not markup is escaped where it is put in."""

from collections.abc import Iterable
from html import escape

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})


class Markup(str):
    """Text that is markup already. Only `tag` and `joined` make it out of what others wrote."""

    __slots__ = ()


Content = str | int | None
"""What may stand in an element: text, which is escaped; Markup; a number; None for nothing."""


def tag(name: str, /, *content: Content, **attributes: str | float | bool | None) -> Markup:
    """An element. Attributes: `class_` is `class`, other underscores are dashes; None and False leave one out."""
    opened = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{opened}>")
    return Markup(f"<{name}{opened}>{joined(content)}</{name}>")


def joined(content: Iterable[Content]) -> Markup:
    """Several pieces of content, one after the other."""
    return Markup("".join(_escaped(one) for one in content))


def _escaped(one: Content) -> str:
    if one is None:
        return ""
    return one if isinstance(one, Markup) else escape(str(one))


def _attribute(key: str, value: str | float | bool | None) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f' {name}="{escape(text)}"'
