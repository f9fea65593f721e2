"""Patterns of paths, as users write them: `*.log`, `**/*.jsonl`, `2026-*`, `keep`.

`*` and `?` stand for characters within one name, `[a-z]` for one of several, `**` for any number of directories. A
pattern that names a directory means all that is in it. So `*.log` is about the directory itself, `**/*.log` about
those below as well.
"""

import re
from collections.abc import Callable
from functools import lru_cache

Matcher = Callable[[str], object]


@lru_cache(maxsize=64)
def matcher(patterns: tuple[str, ...]) -> Matcher:
    """Tells (by something true) whether a relative path, or a directory that it is in, matches one of the patterns.

    Any text is a pattern: a bracket that is never closed stands for itself.
    """
    if not patterns:
        return lambda _path: None
    return re.compile(f"(?s:(?:{'|'.join(map(_translate, patterns))})(?:/.*)?)").fullmatch


def _translate(pattern: str) -> str:
    """One pattern as a regular expression.

    What stands between two `**` is looked for from the left and, once found, not looked for again (atomic groups): so
    the time stays linear in the length of the path. Within a name it is the same with `*`.
    """
    groups: list[list[str]] = [[]]
    for part in pattern.split("/"):
        if part == "**":
            groups.append([])
        elif part not in ("", "."):
            groups[-1].append(_name(part))
    first, *others = ["/".join(group) for group in groups]
    if not any(others):
        return first if not others else f"{first}/.+" if first else ".+"
    text = f"{first}/" if first else ""
    last = others.pop()
    text += "".join(f"(?>(?:[^/]+/)*?{group}/)" for group in others if group)
    return f"{text}(?:[^/]+/)*.+" if not last else f"{text}(?>(?:[^/]+/)*?{last}(?=/|\\Z))"


def _name(part: str) -> str:
    """One name of a pattern as a regular expression."""
    pieces, at = [""], 0
    while at < len(part):
        char, at = part[at], at + 1
        if char == "*":
            pieces.append("")
        elif char == "?":
            pieces[-1] += "[^/]"
        elif char == "[" and (end := part.find("]", at + 1 + (part[at : at + 1] in ("!", "^")))) > 0:
            pieces[-1] += _one_of(part[at:end])
            at = end + 1
        else:
            pieces[-1] += re.escape(char)
    if len(pieces) == 1:
        return pieces[0]
    middle = "".join(f"(?>[^/]*?{piece})" for piece in pieces[1:-1] if piece)
    return f"{pieces[0]}{middle}[^/]*{pieces[-1]}"


def _one_of(choice: str) -> str:
    """What stands in brackets: characters and ranges, after `!` or `^` any others; a range that ends too early is
    empty.
    """
    others = choice[:1] in ("!", "^")
    found: list[str] = []
    at = int(others)
    while at < len(choice):
        if choice[at + 1 : at + 2] == "-" and at + 2 < len(choice):
            first, last, at = choice[at], choice[at + 2], at + 3
            found += [f"{re.escape(first)}-{re.escape(last)}"] if first <= last else []
        else:
            found.append(re.escape(choice[at]))
            at += 1
    if others:
        return f"[^/{''.join(found)}]"
    return f"(?!/)[{''.join(found)}]" if found else "(?!)"
