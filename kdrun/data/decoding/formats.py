"""Supported image formats: those of Pillow and of installed plugins."""

import importlib
import importlib.util
from functools import cache

# Formats that Pillow lists but reads through external programs or not at all.
UNSUPPORTED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"}
# Packages that add a format to Pillow: module → registration function, if any.
PLUGINS = {"pillow_heif": "register_heif_opener", "pillow_avif": None, "pillow_jxl": None}


@cache
def readable_formats() -> tuple[str, ...]:
    """Formats that Pillow and its installed plugins read without an external program."""
    from PIL import Image

    Image.init()
    for module, register in PLUGINS.items():
        if importlib.util.find_spec(module) is None:
            continue
        try:
            plugin = importlib.import_module(module)
            if register is not None:
                getattr(plugin, register)()
        except (ImportError, AttributeError, OSError):  # built for another Pillow version
            continue
    return tuple(sorted(set(Image.OPEN) - UNSUPPORTED))


@cache
def image_extensions() -> frozenset[str]:
    """File extensions, such as `.png`, of `readable_formats`."""
    from PIL import Image

    formats = readable_formats()
    extensions = Image.registered_extensions()
    return frozenset(ending for ending, name in extensions.items() if name in formats)
