"""Words from anywhere inside Markdown."""

import re

# Within a word an underscore means nothing, and names of networks stay readable as plain text.
MARKS = re.compile(r"[\\|`*\[\]#]|(?<![^\W_])_|_(?![^\W_])")


def escaped(text: str) -> str:
    """Text that means nothing to Markdown or to the HTML inside it."""
    text = MARKS.sub(r"\\\g<0>", text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(text.split())


def code(text: str) -> str:
    """Text between backticks, with none inside that would end it, on one line of a table."""
    return f"`{' '.join(text.split()).replace('`', chr(39)).replace('|', '¦')}`"
