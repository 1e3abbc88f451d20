"""Image files that Pillow cannot write, byte by byte."""

import struct
import zlib

import numpy as np


def png(values: np.ndarray, bits: int = 16, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG of `[H, W]` or `[H, W, 2..4]` values of 8 or 16 bits; extra: further chunks."""
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else values.shape[2]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    kind = ">u2" if bits == 16 else "u1"
    rows = b"".join(b"\0" + row.astype(kind).tobytes() for row in values)
    return assemble(width, height, bits, colour, rows, *extra)


def assemble(
    width: int, height: int, bits: int, colour: int, rows: bytes, *extra: tuple[bytes, bytes]
) -> bytes:
    """A PNG from its rows, each with its filter byte."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def tiff(
    values: np.ndarray,
    order: str = "<",
    photometric: int | None = None,
    packed: bool = False,
    premultiplied: bool = False,
) -> bytes:
    """A TIFF of 8- or 16-bit (by dtype) grey `[H, W]` or colour `[H, W, 3 or 4]`.

    order: `<` or `>`. packed: with deflate. premultiplied: the fourth channel is alpha, and the
    colours are multiplied by it.
    """
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else values.shape[2]
    depth = 8 if values.dtype == np.uint8 else 16
    pixels = values.astype(f"{order}u{depth // 8}").tobytes()
    pixels = zlib.compress(pixels) if packed else pixels
    pixels += b"\0" * (len(pixels) % 2)
    if photometric is None:
        photometric = 1 if channels == 1 else 2
    offset = 8
    bits_at = offset + len(pixels)
    bits = struct.pack(f"{order}{channels}H", *[depth] * channels)
    short, long = 3, 4
    entries = [
        (256, short, 1, width),
        (257, short, 1, height),
        (258, short, channels, depth if channels == 1 else bits_at),
        (259, short, 1, 8 if packed else 1),
        (262, short, 1, photometric),
        (273, long, 1, offset),
        (277, short, 1, channels),
        (278, short, 1, height),
        (279, long, 1, len(pixels)),
        *([(338, short, 1, 1)] if premultiplied else []),
    ]
    table = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        wide = kind == long or count * 2 > 4
        field = struct.pack(f"{order}I", value) if wide else struct.pack(f"{order}HH", value, 0)
        table += struct.pack(f"{order}HHI", tag, kind, count) + field
    start = bits_at + len(bits)
    magic = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, start)
    return magic + pixels + bits + table + struct.pack(f"{order}I", 0)
