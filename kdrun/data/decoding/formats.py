"""Image formats that are read: Pillow's own, and those of installed plugins."""

import importlib
import importlib.util
from functools import cache

# Formats that Pillow lists but reads through other programs, or not at all.
NOT_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"}
# Packages that add a format to Pillow: module → function to call once imported.
PLUGINS = {"pillow_heif": "register_heif_opener", "pillow_avif": None, "pillow_jxl": None}


@cache
def readable_formats() -> tuple[str, ...]:
    """The formats that Pillow and its installed plugins read, without another program."""
    from PIL import Image

    Image.init()
    for module, register in PLUGINS.items():
        if importlib.util.find_spec(module) is None:
            continue
        try:
            plugin = importlib.import_module(module)
            if register is not None:
                getattr(plugin, register)()
        except (ImportError, AttributeError, OSError):  # a plugin for another Pillow
            continue
    return tuple(sorted(set(Image.OPEN) - NOT_PICTURES))


@cache
def image_extensions() -> frozenset[str]:
    """Endings, such as `.png`, of the formats in `readable_formats`."""
    from PIL import Image

    formats = readable_formats()
    found = Image.registered_extensions()
    return frozenset(ending for ending, name in found.items() if name in formats)
