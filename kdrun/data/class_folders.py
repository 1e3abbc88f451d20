"""Published data sets as folders of image files, `train/<class>/…` and `test/<class>/…`.

Classes get their published numbers, whatever the order of the folders. A folder whose classes or
counts differ from the published ones is refused: a data set's name stands for exactly its images.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kdrun.data.decoding.options import ReadOptions
from kdrun.data.decoding.read import read_images, with_notes
from kdrun.data.folders.read import read_tree
from kdrun.data.folders.split_names import split_names
from kdrun.data.images import RawDataset
from kdrun.data.text import abbreviate, alphanumeric
from kdrun.data.tree import FileList, Tree
from kdrun.errors import DataError

CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain
plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
STL10 = "airplane bird car cat deer dog horse monkey ship truck"
DTD = """
banded blotchy braided bubbly bumpy chequered cobwebbed cracked crosshatched crystalline dotted
fibrous flecked freckled frilly gauzy grid grooved honeycombed interlaced knitted lacelike lined
marbled matted meshed paisley perforated pitted pleated polka-dotted porous potholed scaly smeared
spiralled sprinkled stained stratified striped studded swirly veined waffled woven wrinkled
zigzagged
"""
FASHION = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
DIGITS = tuple("0123456789")


# Settings for class folders; the published files need none of them.
FOLDER_OPTIONS = ("background", "value_range", "skip_broken", "cache_root", "progress")


@dataclass(frozen=True)
class Published:
    """Contents of a published data set.

    counts: split → images per class, in the order of `classes`. size: (height, width); None if
    images differ in size. numbered: folders may also be named by class numbers.
    """

    name: str
    classes: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    size: tuple[int, int] | None
    channels: int
    numbered: bool = False


def _even(classes: int, **counts: int) -> dict[str, tuple[int, ...]]:
    return {split: (count,) * classes for split, count in counts.items()}


PUBLISHED = {
    "cifar10": Published(
        "CIFAR-10", tuple(CIFAR10.split()), _even(10, train=5000, test=1000), (32, 32), 3
    ),
    "cifar100": Published(
        "CIFAR-100", tuple(CIFAR100.split()), _even(100, train=500, test=100), (32, 32), 3
    ),
    "stl10": Published("STL-10", tuple(STL10.split()), _even(10, train=500, test=800), (96, 96), 3),
    "svhn": Published(
        "SVHN",
        DIGITS,
        {
            "train": (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659),
            "test": (1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595),
        },
        (32, 32),
        3,
    ),
    "mnist": Published(
        "MNIST",
        DIGITS,
        {
            "train": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
            "test": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
        },
        (28, 28),
        1,
    ),
    "fashion_mnist": Published(
        "Fashion-MNIST", FASHION, _even(10, train=6000, test=1000), (28, 28), 1, numbered=True
    ),
    "dtd": Published("DTD", tuple(DTD.split()), _even(47, train=40, val=40, test=40), None, 3),
}


def read_class_folders(
    key: str,
    root: Path,
    options: ReadOptions,
    *,
    image_size: int | list[int] | None = None,
) -> RawDataset | None:
    """The published data set `key` from class folders in `root` or `root/<key>`.

    image_size: only for data sets whose images differ in size.

    Returns None without class folders. Raises DataError for class folders with other contents than
    the published data set.
    """
    published = PUBLISHED[key]
    folder = next((place for place in (root, root / key) if _has_classes(place, published)), None)
    if folder is None:
        return None
    tree = _verified(read_tree(folder), published)
    options = replace(options, image_size=image_size, channels=published.channels)
    raw = read_images(tree, options)
    raw = with_notes(raw, [f"{published.name} is read from class folders: {folder}."])
    if published.size is None:
        return raw
    mixed = any("different sizes" in note for note in raw.notes)
    if mixed or raw.train.shape[1:] != published.size:
        size = "of different sizes" if mixed else "×".join(map(str, raw.train.shape[1:]))
        expected = "×".join(map(str, published.size))
        raise _not_published(folder, published, f"the images are {size}, not {expected}")
    return raw


def _has_classes(folder: Path, published: Published) -> bool:
    """Whether a folder holds split folders, or folders for at least two of the classes."""
    if not folder.is_dir():
        return False
    names = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    if any(entry.is_dir() for name in split_names(names) for entry in (folder / name).iterdir()):
        return True
    known = _folder_names(published)
    return sum(alphanumeric(name) in known for name in names) >= 2


def _verified(tree: Tree, published: Published) -> Tree:
    """The tree with the published class numbers. Raises DataError for another data set."""
    known = _folder_names(published)
    if published.numbered and set(tree.classes) == {str(n) for n in range(len(published.classes))}:
        known = {str(number): number for number in range(len(published.classes))}
    numbers = [known.get(alphanumeric(name)) for name in tree.classes]
    unknown = [name for name, number in zip(tree.classes, numbers, strict=True) if number is None]
    missing = [name for number, name in enumerate(published.classes) if number not in set(numbers)]
    assigned = [number for number in numbers if number is not None]
    repeated = len(assigned) > len(set(assigned))
    if unknown or missing or repeated:
        parts = [f"its classes include {abbreviate(unknown)}"] if unknown else []
        parts += [f"its classes lack {abbreviate(missing)}"] if missing else []
        parts += ["two folders belong to one class"] if repeated else []
        raise _not_published(tree.root, published, " and ".join(parts))
    if set(tree.splits) != set(published.counts):
        raise _not_published(
            tree.root,
            published,
            f"its splits are {', '.join(tree.splits)}, not {', '.join(published.counts)}",
        )
    order = {at: number for at, number in enumerate(numbers) if number is not None}
    splits = {name: _renumbered(files, order) for name, files in tree.splits.items()}
    for name, files in splits.items():
        _check_counts(tree.root, name, files, published)
    return Tree(tree.root, published.classes, splits)


def _renumbered(files: FileList, number: Mapping[int, int]) -> FileList:
    """The images with published class numbers, in that order; stable within a class."""
    files = replace(files, targets=[number[target] for target in files.targets])
    return files.select(sorted(range(len(files)), key=lambda row: files.targets[row]))


def _check_counts(root: Path, split: str, files: FileList, published: Published) -> None:
    expected = published.counts[split]
    counts = [0] * len(published.classes)
    for target in files.targets:
        counts[target] += 1
    wrong = [number for number, count in enumerate(counts) if count != expected[number]]
    if wrong:
        first = wrong[0]
        total = ""
        if len(files) != sum(expected):
            total = f"the {split} split has {len(files):,} images, not {sum(expected):,}; "
        more = len(wrong) - 1
        others = (
            f", and {more} other {'classes differ' if more > 1 else 'class differs'}"
            if more
            else ""
        )
        raise _not_published(
            root,
            published,
            f"{total}{published.classes[first]} has {counts[first]:,} {split} images, not "
            f"{expected[first]:,}{others}",
        )


def _not_published(root: Path, published: Published, reason: str) -> DataError:
    return DataError(
        f"{root} is not {published.name}: {reason}; dataset=imagefolder dataset.root={root} reads "
        "any image folder."
    )


def _folder_names(published: Published) -> dict[str, int]:
    """Folder name → class number (`T-shirt/top` cannot name a folder)."""
    return {alphanumeric(name): number for number, name in enumerate(published.classes)}
