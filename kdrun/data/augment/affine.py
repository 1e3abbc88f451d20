"""Moves of pixels with interpolation, as PIL's `Image.transform` and `rotate`, which timm uses.

Functions take pixels `[B, C, H, W]` uint8 and a strength `[B]` float64 on one device; cubic:
bicubic instead of bilinear; fill: `[C]` or `[1]` uint8 on the CPU, the colour outside of the image.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Matrix = Sequence[float]  # target → source: x' = a·x + b·y + c, y' = d·x + e·y + f


def shear_x(pixels: Tensor, shear: Tensor, cubic: bool, fill: Tensor) -> Tensor:
    """Row y shows what lies shear · (y + 0.5) columns to its right."""
    return moved(pixels, [(1, s, 0, 0, 1, 0) for s in shear.tolist()], cubic, fill)


def shear_y(pixels: Tensor, shear: Tensor, cubic: bool, fill: Tensor) -> Tensor:
    """Column x shows what lies shear · (x + 0.5) rows below it."""
    return moved(pixels, [(1, 0, 0, s, 1, 0) for s in shear.tolist()], cubic, fill)


def translate_x(pixels: Tensor, shift: Tensor, cubic: bool, fill: Tensor) -> Tensor:
    """Show what lies `shift` columns to the right; the shift may be a fraction."""
    return moved(pixels, [(1, 0, s, 0, 1, 0) for s in shift.tolist()], cubic, fill)


def translate_y(pixels: Tensor, shift: Tensor, cubic: bool, fill: Tensor) -> Tensor:
    """Show what lies `shift` rows below; the shift may be a fraction."""
    return moved(pixels, [(1, 0, 0, 0, 1, s) for s in shift.tolist()], cubic, fill)


def rotate(pixels: Tensor, degrees: Tensor, cubic: bool, fill: Tensor) -> Tensor:
    """Rotate counter-clockwise about the centre, by less than 90 degrees."""
    height, width = pixels.shape[2:]
    matrices = [_rotation(angle, width / 2.0, height / 2.0) for angle in degrees.tolist()]
    return moved(pixels, matrices, cubic, fill)


def _rotation(degrees: float, x: float, y: float) -> Matrix:
    """The matrix of PIL's rotation about (x, y)."""
    angle = -math.radians(degrees % 360.0)
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    return (cosine, sine, cosine * -x + sine * -y + x, -sine, cosine, -sine * -x + cosine * -y + y)


def moved(pixels: Tensor, matrices: Sequence[Matrix], cubic: bool, fill: Tensor) -> Tensor:
    """Each image with its matrix."""
    if pixels.device.type == "cpu":  # the same bits, several times as fast
        images = zip(pixels, matrices, strict=True)
        return torch.stack([_by_pil(image, matrix, cubic, fill) for image, matrix in images])
    return moved_together(pixels, matrices, cubic, fill)


def _by_pil(pixels: Tensor, matrix: Matrix, cubic: bool, fill: Tensor) -> Tensor:
    """One image `[C, H, W]`: colour at once, other numbers of channels one by one."""
    channels, height, width = pixels.shape
    kind = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
    colours = fill.expand(channels).tolist()

    def transformed(values: Tensor, colour: int | tuple[int, ...]) -> Tensor:
        image = Image.fromarray(values.contiguous().numpy())
        settings = (width, height), Image.Transform.AFFINE, matrix
        return torch.from_numpy(np.array(image.transform(*settings, kind, fillcolor=colour)))

    if channels == 3:
        return transformed(pixels.permute(1, 2, 0), tuple(colours)).permute(2, 0, 1)
    return torch.stack([transformed(*each) for each in zip(pixels, colours, strict=True)])


def moved_together(pixels: Tensor, matrices: Sequence[Matrix], cubic: bool, fill: Tensor) -> Tensor:
    """`moved` as operations on the whole batch, with PIL's arithmetic in float64 and its order."""
    batch, channels, height, width = pixels.shape
    exact = {"dtype": torch.float64, "device": pixels.device}
    table = torch.tensor(matrices, **exact)  # type: ignore[arg-type]
    a, b, c, d, e, f = (column.view(-1, 1, 1) for column in table.unbind(1))
    rows = torch.arange(height, **exact).view(1, -1, 1) + 0.5  # type: ignore[call-overload]
    columns = torch.arange(width, **exact).view(1, 1, -1) + 0.5  # type: ignore[call-overload]
    x, y = a * columns + b * rows + c, d * columns + e * rows + f
    flat = pixels.reshape(batch, channels, -1)

    def values(row: Tensor, column: Tensor) -> Tensor:
        place = (row * width + column).view(batch, 1, -1).expand(-1, channels, -1)
        return flat.gather(2, place).view(pixels.shape).double()

    neighbours_x, across = _neighbours(x, width, cubic)
    neighbours_y, down = _neighbours(y, height, cubic)
    lines = [_between([values(row, col) for col in neighbours_x], across) for row in neighbours_y]
    interpolated = _between(lines, down).clamp_(0, 255).to(torch.uint8)  # PIL truncates
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return torch.where(inside.unsqueeze(1), interpolated, fill.to(pixels.device).view(1, -1, 1, 1))


def _neighbours(place: Tensor, side: int, cubic: bool) -> tuple[list[Tensor], Tensor]:
    """(positions along one axis of two or four pixels, share of the way between the middle two)."""
    before = (place - 0.5).floor()
    offsets = range(-1, 3) if cubic else range(2)
    positions = [(before.long() + offset).clamp(0, side - 1) for offset in offsets]
    return positions, (place - 0.5 - before).unsqueeze(1)


def _between(values: list[Tensor], share: Tensor) -> Tensor:
    """Interpolate between two neighbours, or four: cubic convolution with a = -1."""
    if len(values) == 2:
        first, second = values
        return first + (second - first) * share
    v1, v2, v3, v4 = values
    linear, square = v3 - v1, 2 * (v1 - v2) + v3 - v4
    cube = v2 - v1 - v3 + v4
    return v2 + share * (linear + share * (square + share * cube))
