"""Moves of pixels with parameters per image: shears, shifts, rotations, resized crops, blur.

Shears, shifts and rotations take the nearest pixel and leave black borders, as in torchvision.
Functions take pixels `[B, C, H, W]` uint8, as those of `colours`. Sums of products are exact
(integers in float64), so a result depends neither on the device nor on the batch.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from kdrun.data.augment.crops import reflected

BLUR_RADIUS = 6  # pixels on each side: three standard deviations of the strongest blur


def shear_x(pixels: Tensor, shear: Tensor) -> Tensor:
    """Shift row y by shear · (y + 0.5) columns to the left."""
    rows, columns = _grid(pixels)
    return _sample(pixels, rows, columns + shear.view(-1, 1, 1) * (rows + 0.5))


def shear_y(pixels: Tensor, shear: Tensor) -> Tensor:
    """Shift column x by shear · (x + 0.5) rows upwards."""
    rows, columns = _grid(pixels)
    return _sample(pixels, rows + shear.view(-1, 1, 1) * (columns + 0.5), columns)


def translate_x(pixels: Tensor, shift: Tensor) -> Tensor:
    """Shift by whole columns to the right."""
    rows, columns = _grid(pixels)
    return _sample(pixels, rows, columns - shift.trunc().view(-1, 1, 1))


def translate_y(pixels: Tensor, shift: Tensor) -> Tensor:
    """Shift by whole rows downwards."""
    rows, columns = _grid(pixels)
    return _sample(pixels, rows - shift.trunc().view(-1, 1, 1), columns)


def rotate(pixels: Tensor, degrees: Tensor) -> Tensor:
    """Rotate counter-clockwise about the centre."""
    rows, columns = _grid(pixels)
    middle_y, middle_x = (pixels.shape[2] - 1) / 2, (pixels.shape[3] - 1) / 2
    angle = degrees.cpu().deg2rad()  # the same sine on every device
    sine, cosine = (f.to(pixels.device).view(-1, 1, 1) for f in (angle.sin(), angle.cos()))
    y, x = rows - middle_y, columns - middle_x
    return _sample(pixels, sine * x + cosine * y + middle_y, cosine * x - sine * y + middle_x)


def _grid(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """(rows `[1, H, 1]`, columns `[1, 1, W]`), float64."""
    height, width = pixels.shape[2:]
    kind = {"device": pixels.device, "dtype": torch.float64}
    return torch.arange(height, **kind).view(1, -1, 1), torch.arange(width, **kind).view(1, 1, -1)  # type: ignore[call-overload]


def _sample(pixels: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The pixels nearest to (y, x) `[B, H, W]` (or broadcast to it); black outside."""
    batch, channels, height, width = pixels.shape
    rows, columns = y.round().long(), x.round().long()
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    place = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    place = place.expand(batch, height, width).reshape(batch, 1, -1).expand(-1, channels, -1)
    moved = pixels.reshape(batch, channels, -1).gather(2, place).view(pixels.shape)
    return moved * inside.expand(batch, height, width).unsqueeze(1)


def resized_crop(pixels: Tensor, boxes: Tensor, size: tuple[int, int], cubic: Tensor) -> Tensor:
    """Cut out boxes `[B, 4]` int64 (top, left, height, width; on the CPU) and resize to `size`.

    Antialiased, columns first, rounded after each pass, as torch resizes uint8. Float images are
    resized without rounding. cubic: `[B]` bool on the CPU: bicubic instead of bilinear.
    """
    if pixels.device.type == "cpu":  # the same bits with less arithmetic
        crops = zip(pixels.split(1), boxes.tolist(), cubic.tolist(), strict=True)
        return torch.cat([_one(image, box, size, bicubic) for image, box, bicubic in crops])
    return resized_together(pixels, boxes, size, cubic)


def resized_together(pixels: Tensor, boxes: Tensor, size: tuple[int, int], cubic: Tensor) -> Tensor:
    """`resized_crop` as two products of the whole batch, for devices with fast float64."""
    top, left, height, width = boxes.unbind(1)
    across = _weights(left, width, pixels.shape[3], size[1], cubic)
    down = _weights(top, height, pixels.shape[2], size[0], cubic)
    if pixels.dtype != torch.uint8:
        wide = pixels @ _on(across, pixels).transpose(1, 2).unsqueeze(1)
        return _on(down, pixels).unsqueeze(1) @ wide
    narrow = _pass(pixels, across, lambda values, weights: values @ weights.transpose(2, 3))
    return _pass(narrow, down, lambda values, weights: weights @ values)


def _one(image: Tensor, box: list[int], size: tuple[int, int], cubic: bool) -> Tensor:
    top, left, height, width = box
    crop = image[:, :, top : top + height, left : left + width].contiguous()
    mode = "bicubic" if cubic else "bilinear"
    return functional.interpolate(crop, size, mode=mode, antialias=True)


def _on(weights: Tensor, pixels: Tensor) -> Tensor:
    return weights.to(pixels.device, pixels.dtype)


def _weights(start: Tensor, length: Tensor, side: int, out: int, cubic: Tensor) -> Tensor:
    """`[B, out, side]` float64: the share of each source pixel in each target pixel."""
    first, length = start.double().view(-1, 1, 1), length.double().view(-1, 1, 1)
    scale = length / out
    centre = (torch.arange(out, dtype=torch.float64).view(1, -1, 1) + 0.5) * scale
    place = torch.arange(side, dtype=torch.float64).view(1, 1, -1) - first
    distance = ((place + 0.5 - centre) / scale.clamp(min=1)).abs()
    weights = (1 - distance).clamp(min=0)
    if bool(cubic.any()):
        weights = torch.where(cubic.view(-1, 1, 1), _bicubic(distance), weights)
    weights = weights * ((place >= 0) & (place < length))
    return weights / weights.sum(2, keepdim=True)


def _bicubic(distance: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5, as PIL and torch resize with antialiasing."""
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))


def _pass(pixels: Tensor, weights: Tensor, product: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """One direction of a resize, with weights as integers: sums are exact in any order."""
    largest = weights.amax(dim=(1, 2), keepdim=True)
    bits = (((2**15 - 0.5) / largest).log2().ceil() - 1).clamp(max=22)  # torch: weights of 15 bits
    scaled = weights * 2**bits
    whole = (scaled.abs() + 0.5).floor() * scaled.sign()  # half away from zero
    kind = torch.float64  # holds every sum exactly
    total = product(pixels.to(kind), whole.unsqueeze(1).to(pixels.device, kind))
    half_up = (total / (2**bits).unsqueeze(1).to(pixels.device, kind) + 0.5).floor()
    return half_up.clamp(0, 255).to(torch.uint8)


def blur(pixels: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with reflected borders; sigma: `[B]` in pixels, at most 2."""
    steps = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, dtype=torch.float64)
    kernel = (-0.5 * (steps / sigma.cpu().double().view(-1, 1)) ** 2).exp()
    kernel = (kernel / kernel.sum(1, keepdim=True)).float().to(pixels.device)
    values = pixels.float()
    for axis in (2, 3):
        places = reflected(values.shape[axis], BLUR_RADIUS).to(pixels.device)
        padded = values.index_select(axis, places)
        total = torch.zeros_like(values)
        for step in range(2 * BLUR_RADIUS + 1):
            shifted = padded.narrow(axis, step, values.shape[axis])
            total = total + shifted * kernel[:, step].view(-1, 1, 1, 1)
        values = total
    return values.round().clamp(0, 255).to(torch.uint8)
