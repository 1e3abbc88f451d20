"""The answer to a folder of images without class folders."""

from kdrun.data.folders import Folder, shown
from kdrun.errors import DataError


def no_class_folders(folder: Folder) -> DataError:
    """The error for images that no folder gives a class."""
    return DataError(
        f"{shown(folder.path)} holds {folder.count()} and no class folders: put the images of "
        f"each class into a folder of its own ({shown(folder.path)}/<class>/<image>)."
    )
