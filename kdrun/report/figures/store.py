"""The figures of a run on disk: PNG files for light and dark screens, with an index of captions and
alternative texts."""

import base64
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdrun.files import make_folder, write_atomically, write_json
from kdrun.report.records import read_object

FOLDER, INDEX = "pictures", "album.json"  # the layout of run folders
PNG = b"\x89PNG\r\n\x1a\n"
THEMES = ("light", "dark")


@dataclass(frozen=True)
class StoredFigure:
    """A figure. light, dark: PNG bytes. width, height: in CSS pixels."""

    name: str
    title: str
    caption: str
    alt: str
    width: int
    height: int
    light: bytes
    dark: bytes

    def source(self, theme: str) -> str:
        """The image as a `data:` URL."""
        content = self.light if theme == "light" else self.dark
        return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def write_figures(run: Path, figures: list[StoredFigure]) -> Path:
    """Write figures into the run's folder; returns their folder."""
    folder = run / FOLDER
    make_folder(folder)
    entries = []
    for figure in figures:
        for theme in THEMES:
            write_atomically(folder / f"{figure.name}-{theme}.png", getattr(figure, theme))
        entries.append({k: v for k, v in asdict(figure).items() if k not in THEMES})
    write_json(folder / INDEX, {"schema": 1, "pictures": entries})
    return folder


def read_figures(run: Path) -> list[StoredFigure]:
    """The figures in a run's folder; missing and damaged ones are skipped."""
    folder = run / FOLDER
    entries = read_object(folder / INDEX).get("pictures")
    figures = (_read(folder, entry) for entry in (entries if isinstance(entries, list) else []))
    return [figure for figure in figures if figure is not None]


def _read(folder: Path, entry: object) -> StoredFigure | None:
    if not isinstance(entry, dict):
        return None
    kinds = {"name": str, "title": str, "caption": str, "alt": str, "width": int, "height": int}
    values: dict[str, Any] = {key: entry.get(key) for key in kinds}
    if not all(isinstance(values[key], kind) for key, kind in kinds.items()):
        return None
    name = values["name"]
    if Path(name).name != name:  # must not lead out of the folder
        return None
    try:
        light, dark = ((folder / f"{name}-{theme}.png").read_bytes() for theme in THEMES)
    except OSError:
        return None
    if not (light.startswith(PNG) and dark.startswith(PNG)):
        return None
    return StoredFigure(**values, light=light, dark=dark)
