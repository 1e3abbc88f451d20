"""`dataset.class_order` as a text file: read with the settings, so that runs keep its content."""

from pathlib import Path
from typing import Any

from kdrun.errors import ConfigError, did_you_mean

NATURAL = "natural"
LEXICOGRAPHIC = "lexicographic"
LARGEST_FILE = 64 * 2**20  # bytes


def class_order_setting(value: Any) -> Any:
    """The value with a file replaced by its lines."""
    if not isinstance(value, str) or value in (NATURAL, LEXICOGRAPHIC):
        return value
    return read_class_file(value)


def read_class_file(value: str) -> list[str]:
    """The lines of a text file with a class per line, without blank ones.

    Raises ConfigError for a file that is missing or no text.
    """
    where = f"dataset.class_order={value}"
    try:
        path = Path(value).expanduser()
        if not path.is_file():
            raise ConfigError(
                f"{where} is neither {NATURAL} nor {LEXICOGRAPHIC} nor a text file with a class "
                f"per line.{did_you_mean(value, (NATURAL, LEXICOGRAPHIC))}"
            )
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigError(f"{where} is too large for a list of class names.")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError, RuntimeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeError) else str(error)
        raise ConfigError(f"{where} cannot be read: {reason}.") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
