"""A folder of images as a data set: `train/<class>/…` with `test/` or `val/`, or `<class>/…`."""

from kdrun.data.decoding.options import ReadOptions, takes_options
from kdrun.data.decoding.read import read_images
from kdrun.data.folders.read import read_tree
from kdrun.data.images import RawDataset
from kdrun.data.paths import expanded


@takes_options()
def imagefolder(
    *,
    root: str,
    train_folder: str | None = None,
    val_folder: str | None = None,
    test_folder: str | None = None,
    options: ReadOptions,
) -> RawDataset:
    """The images below `root`; `folders.read.read_tree` describes the supported layouts.

    train_folder, val_folder, test_folder: where a split lies, relative to `root` or absolute; None
    finds it by its name. A `*` stands for the class (`*/train`).
    options: see `ReadOptions`.

    Raises DataError for an unusable folder or file, ConfigError for an invalid setting.
    """
    folders = {"train": train_folder, "val": val_folder, "test": test_folder}
    tree = read_tree(
        expanded(root, "dataset.root"),
        options.follow_links,
        folders={split: value for split, value in folders.items() if value is not None},
        class_order=options.class_order,
    )
    return read_images(tree, options)
