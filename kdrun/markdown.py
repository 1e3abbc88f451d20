"""Escape untrusted text for Markdown."""

import re

# An underscore inside a word has no meaning, so names of networks stay readable.
MARKS = re.compile(r"[\\|`*\[\]#]|(?<![^\W_])_|_(?![^\W_])")


def escaped(text: str) -> str:
    """Escape Markdown and HTML, and join lines."""
    text = MARKS.sub(r"\\\g<0>", text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(text.split())


def code(text: str) -> str:
    """Inline code that is safe in a table cell."""
    return f"`{' '.join(text.split()).replace('`', chr(39)).replace('|', '¦')}`"
