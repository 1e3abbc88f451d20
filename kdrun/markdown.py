"""Words from anywhere inside Markdown."""


def escaped(text: str) -> str:
    """Text that means nothing to Markdown or to the HTML inside it."""
    for mark in ("\\", "|", "`", "*", "_", "[", "]", "#"):
        text = text.replace(mark, f"\\{mark}")
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(text.split())


def code(text: str) -> str:
    """Text between backticks, with none inside that would end it, on one line of a table."""
    return f"`{' '.join(text.split()).replace('`', chr(39)).replace('|', '¦')}`"
