"""Read the text of a table: encoding, and rows with line numbers."""

import codecs
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from kdrun.data.text import abbreviate
from kdrun.errors import ConfigError, DataError, did_you_mean

SPREADSHEETS = {".xlsx", ".xls", ".ods", ".numbers"}
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Rows:
    """Iterates over (line number, fields) of a table; a second loop continues after the first.

    Skips rows of empty fields and counts them in `empty`. Raises DataError for a row with another
    number of fields than the first, and for damaged quoting.
    """

    def __init__(self, text: str, delimiter: str, path: Path, first_line: int) -> None:
        self.path = path
        self.offset = first_line - 1
        self.reader = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=delimiter,
            strict=True,
            skipinitialspace=True,
        )
        self.width: int | None = None
        self.empty = 0

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        while True:
            start = self.reader.line_num + 1 + self.offset
            try:
                row = next(self.reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise DataError(
                    f"{self.path}, line {start}: damaged quoting ({error}); a quoted field starts "
                    'and ends with ", and a " inside it is doubled.'
                ) from None
            if not any(field.strip() for field in row):
                self.empty += bool(row)
                continue
            if self.width is None:
                self.width = len(row)
            elif len(row) != self.width:
                raise DataError(
                    f"{self.path}, line {start}: {len(row)} fields where the first line has "
                    f"{self.width}; quote fields that contain the delimiter, or set "
                    "dataset.delimiter."
                )
            yield start, row


def read_text(path: Path, encoding: str | None) -> tuple[str, int]:
    """(text without byte-order mark and Excel's `sep=` line, number of its first line)."""
    content = _content(path)
    if encoding is None:
        encoding = next((name for mark, name in BOMS if content.startswith(mark)), "utf-8")
    else:
        try:
            codecs.lookup(encoding)
        except LookupError:
            raise ConfigError(
                f"dataset.encoding={encoding} does not exist: use utf-8, utf-16, cp1252 (Western "
                "Europe), cp949 (Korean), shift_jis or gb18030."
            ) from None
    try:
        text = content.decode(encoding)
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        line = content[:start].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line}: not {encoding}: set dataset.encoding, for example cp1252 "
            "(Western Europe), cp949 (Korean) or shift_jis, or save the table as UTF-8."
        ) from None
    text = text.removeprefix("\ufeff")
    if re.match(r"sep=.\r?\n", text):
        return text.split("\n", 1)[1], 2
    return text, 1


def _content(path: Path) -> bytes:
    if path.is_dir():
        tables = sorted(p.name for p in path.iterdir() if p.suffix.lower() in (".csv", ".tsv"))
        hint = f": it holds {abbreviate(tables)}" if tables else ""
        raise DataError(f"dataset.file={path} is a folder{hint}; name the table.")
    if not path.exists():
        folder = path.parent
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        raise DataError(f"dataset.file={path} does not exist.{did_you_mean(path.name, names)}")
    if not path.is_file():
        raise DataError(f"dataset.file={path} is not a file.")
    if path.suffix.lower() == ".parquet":
        raise DataError(f"{path} is a Parquet file: use dataset=parquet dataset.root={path}.")
    content = path.read_bytes()
    if path.suffix.lower() in SPREADSHEETS or content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11")):
        raise DataError(f"{path} is a spreadsheet: export it as CSV (UTF-8).")
    if content.startswith(b"\x1f\x8b"):
        raise DataError(f"{path} is compressed: unpack it with gunzip.")
    has_bom = any(content.startswith(mark) for mark, _ in BOMS)
    if b"\0" in content[:4096] and not has_bom:
        raise DataError(
            f"{path} is not a text file; if it is UTF-16 without a byte-order mark, set "
            "dataset.encoding=utf-16-le."
        )
    return content
