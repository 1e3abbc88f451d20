"""Count skipped files and suggest packages that read their format."""

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
# Extensions of image formats without an installed reader.
IMAGE_REMEDIES = [remedy for remedy in PACKAGES if remedy.startswith(("pip", CONVERT))]
UNSUPPORTED_IMAGES = {ending for remedy in IMAGE_REMEDIES for ending in PACKAGES[remedy].split()}


@dataclass
class Unread:
    """Skipped files in the folders that were read.

    endings: number of files by lower-case extension ("" for none). hidden: number of hidden files
    and folders. loose: folder → number of images outside class folders.
    """

    endings: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    loose: Counter[str] = field(default_factory=Counter)

    def add(self, endings: Mapping[str, int], hidden: int = 0) -> None:
        """Count the files of one more folder."""
        self.endings.update(endings)
        self.hidden += hidden

    def notes(self) -> list[str]:
        """One sentence per kind of file, with counts and how to read them."""
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
            notes.append(f"Not read: {self._format_counts(endings)}; to use them: {remedy}.")
        unknown = [ending for ending in sorted(self.endings, key=natural) if ending not in REMEDIES]
        skipped = [self._format_counts(unknown)] if unknown else []
        skipped += [f"{self.hidden:,} hidden"] if self.hidden else []
        if skipped:
            notes.append(f"Skipped, not images: {', '.join(skipped)}.")
        return notes

    def _format_counts(self, endings: Iterable[str]) -> str:
        return ", ".join(
            f"{self.endings[ending]:,} {ending or 'without extension'}" for ending in endings
        )


def why_empty(unread: Unread) -> str:
    """Content of a folder without images: ` (it has 12 .heic; pip install pillow-heif)`, or ``."""
    counts = unread.endings
    if not counts:
        return ""
    ending, number = max(counts.items(), key=lambda item: (item[0] in REMEDIES, item[1], item[0]))
    what = f"{number:,} {ending or 'without extension'}"
    more = len(counts) - 1
    suffix = f" and {more} other kind{'s' * (more > 1)} of files" if more else ""
    remedy = f"; {REMEDIES[ending]}" if ending in REMEDIES else ""
    return f" (it has {what}{suffix}{remedy})"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
