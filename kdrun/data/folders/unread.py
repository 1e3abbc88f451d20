"""Files that are not read: how they are counted, and which package reads their format."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kdrun.data.class_order import natural

CONVERT = "convert them to PNG, e.g. with"
PACKAGES = {
    "pip install pillow-heif": ".heic .heics .heif .heifs .hif",
    "pip install pillow-avif-plugin": ".avif .avifs",
    "pip install pillow-jxl-plugin": ".jxl",
    f"{CONVERT} cairosvg": ".svg .svgz",
    f"{CONVERT} rawpy": (
        ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .iiq .kdc .mrw .nef .nrw .orf .pef .raf .raw "
        ".rw2 .rwl .sr2 .srf .srw .x3f"
    ),
    f"{CONVERT} pydicom": ".dcm .dicom",
    f"{CONVERT} nibabel": ".nii",
    f"{CONVERT} imageio": ".exr .hdr",
    f"{CONVERT} psd-tools": ".psb",
    f"{CONVERT} openslide": ".ndpi .svs .mrxs",
    f"{CONVERT} pdf2image": ".pdf",
    f"{CONVERT} Ghostscript": ".ai .eps .ps",
    "extract frames, e.g. with ffmpeg": ".avi .m4v .mkv .mov .mp4 .mpeg .mpg .webm .wmv",
    "read them with dataset=custom": ".h5 .hdf5 .mat .npy .npz",
    "unpack them": ".7z .bz2 .gz .rar .tar .tgz .xz .zip",
}
REMEDIES = {ending: remedy for remedy, endings in PACKAGES.items() for ending in endings.split()}
# Files that hold nothing but images, in formats for which no reader is installed.
PICTURE_REMEDIES = [remedy for remedy in PACKAGES if remedy.startswith(("pip", CONVERT))]
PICTURES = {ending for remedy in PICTURE_REMEDIES for ending in PACKAGES[remedy].split()}


@dataclass
class Unread:
    """What was passed over in the folders that were read.

    endings: files by lower-case extension, empty for none. hidden: hidden files and folders.
    loose: images outside class folders, by folder.
    """

    endings: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    loose: Counter[str] = field(default_factory=Counter)

    def add(self, endings: Mapping[str, int], hidden: int = 0) -> None:
        """Count the files of one more folder."""
        self.endings.update(endings)
        self.hidden += hidden

    def notes(self) -> list[str]:
        """One sentence per kind of file, with counts and what would read it."""
        notes = [
            f"{_counted(number, 'image')} in {folder} "
            f"{'lies' if number == 1 else 'lie'} outside the class folders: not read."
            for folder, number in self.loose.items()
        ]
        by_remedy: dict[str, list[str]] = {}
        for ending in sorted(self.endings, key=natural):
            if ending in REMEDIES:
                by_remedy.setdefault(REMEDIES[ending], []).append(ending)
        for remedy, endings in by_remedy.items():
            notes.append(f"Not read: {self._words(endings)}; to use them: {remedy}.")
        rest = [ending for ending in sorted(self.endings, key=natural) if ending not in REMEDIES]
        others = self._words(rest)
        if self.hidden:
            others += (", " if others else "") + f"{self.hidden:,} hidden"
        if others:
            notes.append(f"Skipped, not images: {others}.")
        return notes

    def _words(self, endings: Iterable[str]) -> str:
        return ", ".join(f"{self.endings[one]:,} {one or 'without extension'}" for one in endings)


def why_empty(unread: Unread) -> str:
    """` (12 .heic: pip install pillow-heif)`: what an imageless folder holds; empty for nothing."""
    counts = unread.endings
    if not counts:
        return ""
    ending, number = max(counts.items(), key=lambda item: (item[0] in REMEDIES, item[1], item[0]))
    what = f"{number:,} {ending or 'without extension'}"
    more = len(counts) - 1
    others = f" and {more} other kind{'s' * (more > 1)} of files" if more else ""
    remedy = f"; {REMEDIES[ending]}" if ending in REMEDIES else ""
    return f" (it has {what}{others}{remedy})"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
