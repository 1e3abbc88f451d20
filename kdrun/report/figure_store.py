"""A run's pictures on disk: PNG files for light and dark screens, and `album.json` that says what
each shows, in words for a reader who cannot see it."""

import base64
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdrun.files import make_folder, write_atomically, write_json
from kdrun.report.records import read_object

FOLDER, INDEX = "pictures", "album.json"
PNG = b"\x89PNG\r\n\x1a\n"
THEMES = ("light", "dark")


@dataclass(frozen=True)
class Picture:
    """One picture. light, dark: PNG bytes. width, height: in CSS pixels."""

    name: str
    title: str
    caption: str
    alt: str
    width: int
    height: int
    light: bytes
    dark: bytes

    def source(self, theme: str) -> str:
        """The picture as a `data:` URL."""
        content = self.light if theme == "light" else self.dark
        return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def write_album(run: Path, pictures: list[Picture]) -> Path:
    """Write the pictures into the run's folder; returns where."""
    folder = run / FOLDER
    make_folder(folder)
    entries = []
    for picture in pictures:
        for theme in THEMES:
            write_atomically(folder / f"{picture.name}-{theme}.png", getattr(picture, theme))
        entries.append({k: v for k, v in asdict(picture).items() if k not in THEMES})
    write_json(folder / INDEX, {"schema": 1, "pictures": entries})
    return folder


def read_album(run: Path) -> list[Picture]:
    """The pictures in a run's folder; those that are missing or damaged are left out."""
    folder = run / FOLDER
    entries = read_object(folder / INDEX).get("pictures")
    found = []
    for entry in entries if isinstance(entries, list) else []:
        picture = _read(folder, entry)
        if picture is not None:
            found.append(picture)
    return found


def _read(folder: Path, entry: object) -> Picture | None:
    if not isinstance(entry, dict):
        return None
    kinds = {"name": str, "title": str, "caption": str, "alt": str, "width": int, "height": int}
    values: dict[str, Any] = {key: entry.get(key) for key in kinds}
    if not all(isinstance(values[key], kind) for key, kind in kinds.items()):
        return None
    name = values["name"]
    if Path(name).name != name:  # a name, not a way out of the folder
        return None
    try:
        light, dark = ((folder / f"{name}-{theme}.png").read_bytes() for theme in THEMES)
    except OSError:
        return None
    if not (light.startswith(PNG) and dark.startswith(PNG)):
        return None
    return Picture(**values, light=light, dark=dark)
