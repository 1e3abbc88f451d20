"""Augmentation policies: which operations each image gets, in which strength.

Tables and ranges are those of torchvision's RandAugment, AutoAugment and TrivialAugmentWide, of
timm's RandAugment, and of DeiT III's 3-Augment. A policy draws `Step`s: one operation per image
each, run one after another.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from kdrun.config.augment import AugmentConfig, JitterConfig
from kdrun.data.augment import affine, colours, geometry, pil_colours
from kdrun.data.augment.autoaugment_tables import AUTOAUGMENT

Operation = Callable[[Tensor, Tensor], Tensor]
IDENTITY = "identity"
OPERATIONS: dict[str, Operation] = {
    IDENTITY: lambda pixels, _: pixels,
    "shear_x": geometry.shear_x,
    "shear_y": geometry.shear_y,
    "translate_x": geometry.translate_x,
    "translate_y": geometry.translate_y,
    "rotate": geometry.rotate,
    "brightness": colours.brightness,
    "color": colours.saturation,
    "contrast": colours.contrast,
    "sharpness": colours.sharpness,
    "posterize": colours.posterize,
    "solarize": colours.solarize,
    "autocontrast": colours.autocontrast,
    "equalize": colours.equalize,
    "invert": colours.invert,
    "hue": colours.hue,
    "grey": colours.grey,
    "solarize_add": colours.solarize_add,
    "blur": geometry.blur,
}
# What timm does with PIL.
PIL = {
    "brightness": pil_colours.brightness,
    "color": pil_colours.saturation,
    "contrast": pil_colours.contrast,
    "sharpness": pil_colours.sharpness,
    "autocontrast": pil_colours.autocontrast,
}
OPERATIONS |= {f"{name}_pil": operation for name, operation in PIL.items()}
# Moves with interpolation, and with a colour for what they uncover.
INTERPOLATIONS = ("bilinear", "bicubic")
MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
FILLING: dict[str, Callable[..., Tensor]] = {
    f"{move}_{kind}": partial(getattr(affine, move), cubic=kind == "bicubic")
    for kind in INTERPOLATIONS
    for move in MOVES
}
NAMES = (*OPERATIONS, *FILLING)
NUMBER = {name: number for number, name in enumerate(NAMES)}
# Number of an operation → those of timm's, with bilinear and with bicubic interpolation.
TIMM_OPERATIONS = [
    [NUMBER.get(f"{name}_{kind}", NUMBER.get(f"{name}_pil", number)) for kind in INTERPOLATIONS]
    for number, name in enumerate(NAMES)
]
# RandAugment and TrivialAugment choose among these.
SPACE = NAMES[: NAMES.index("invert")]
# timm's `rand-...-inc1`: every operation grows with the strength.
TIMM_SPACE = (
    *("autocontrast", "equalize", "invert", "rotate", "posterize", "solarize", "solarize_add"),
    *("color", "contrast", "brightness", "sharpness"),
    *("shear_x", "shear_y", "translate_x", "translate_y"),
)
TIMM_PROBABILITY = 0.5
TIMM_NUMBERS = 6  # random numbers per operation
TIMM_FILL = (128,)  # where no mean colour is given
FACTORS = ("brightness", "color", "contrast", "sharpness")
SIGNED = (*NAMES[1:6], *FACTORS)
BINS = 31  # strengths of RandAugment and TrivialAugment
AUTOAUGMENT_BINS = 10
RANDAUGMENT_SHIFT = 150 / 331  # of the image's side
TRIVIAL_SHIFT = 32  # pixels
SOLARIZE_THRESHOLD = 128 / 255  # of 3-Augment
CACHED_VALUES = 2**18  # values per operation on a CPU: they fit its cache
BLUR_SIGMA = (0.1, 2.0)


@dataclass(frozen=True)
class Step:
    """One operation per image.

    operations: `[B]` numbers; strengths: `[B]` float64; both on the CPU. fill: 8-bit value per
    channel (or one for all) of what timm's moves uncover.
    """

    operations: Tensor
    strengths: Tensor
    fill: tuple[int, ...] = TIMM_FILL


def run(pixels: Tensor, steps: Sequence[Step]) -> Tensor:
    """Pixels `[B, C, H, W]` uint8 after all steps; `pixels` is overwritten."""
    on_cpu = pixels.device.type == "cpu"
    most = max(1, CACHED_VALUES // max(1, pixels[0].numel())) if on_cpu else max(1, len(pixels))
    for step in steps:
        for number in step.operations.unique().tolist():
            if NAMES[number] == IDENTITY:
                continue
            operation = _operation(NAMES[number], step.fill)
            for rows in (step.operations == number).nonzero()[:, 0].split(most):
                strengths = step.strengths[rows].to(pixels.device, non_blocking=True)
                rows = rows.to(pixels.device, non_blocking=True)
                changed = operation(pixels.index_select(0, rows), strengths)
                pixels.index_copy_(0, rows, changed)
    return pixels


def _operation(name: str, fill: tuple[int, ...]) -> Operation:
    if name in OPERATIONS:
        return OPERATIONS[name]
    return partial(FILLING[name], fill=torch.tensor(fill, dtype=torch.uint8))


def number_count(augment: AugmentConfig) -> int:
    """Uniform random numbers per image that `draw` reads."""
    return {
        "none": 0,
        "randaugment": 2 * augment.num_ops,
        "timm_randaugment": TIMM_NUMBERS * augment.num_ops,
        "trivialaugment": 3,
        "three_augment": 2,
    }.get(augment.policy, 5)


def draw(
    augment: AugmentConfig,
    uniform: Tensor,
    size: tuple[int, int],
    fill: tuple[int, ...] = TIMM_FILL,
) -> list[Step]:
    """The steps of a policy from random numbers `[B, number_count]`; size: (height, width)."""
    if augment.policy == "none":
        return []
    if augment.policy == "randaugment":
        return _randaugment(augment, uniform, size)
    if augment.policy == "timm_randaugment":
        return [
            _timm_step(augment, numbers, size, fill)
            for numbers in uniform.split(TIMM_NUMBERS, dim=1)
        ]
    if augment.policy == "trivialaugment":
        return [_trivialaugment(uniform, size)]
    if augment.policy == "three_augment":
        return [_three_augment(uniform)]
    return _autoaugment(augment.policy, uniform, size)


def _randaugment(augment: AugmentConfig, uniform: Tensor, size: tuple[int, int]) -> list[Step]:
    """`num_ops` operations of one strength, which may lie between two of torchvision's bins."""
    tables = _tables(SPACE, _randaugment_ranges(size), BINS, 4)
    lower = int(augment.magnitude)
    upper = min(lower + 1, BINS - 1)
    strength = tables[:, lower] + (augment.magnitude - lower) * (
        tables[:, upper] - tables[:, lower]
    )
    steps = []
    for first in range(0, 2 * augment.num_ops, 2):
        operations = _choice(uniform[:, first], len(SPACE))
        steps.append(_step(operations, strength[operations], uniform[:, first + 1]))
    return steps


def _timm_step(
    augment: AugmentConfig, uniform: Tensor, size: tuple[int, int], fill: tuple[int, ...]
) -> Step:
    """One operation with probability ½, of a normally distributed strength from 0 to 10."""
    numbers = torch.tensor([NUMBER[name] for name in TIMM_SPACE])
    operations = numbers[_choice(uniform[:, 0], len(TIMM_SPACE))]
    bell = (-2 * torch.log1p(-uniform[:, 2])).sqrt() * torch.cos(2 * torch.pi * uniform[:, 3])
    share = (augment.magnitude + augment.magnitude_std * bell).clamp(0, 10) / 10
    strengths = torch.zeros_like(share)
    for name, values in timm_strengths(share, size).items():
        strengths = torch.where(operations == NUMBER[name], values, strengths)
    step = _step(operations, strengths, uniform[:, 4])
    cubic = uses_bicubic(augment.interpolation, uniform[:, 5])
    operations = torch.tensor(TIMM_OPERATIONS)[operations, cubic.long()]
    applied = uniform[:, 1] <= TIMM_PROBABILITY
    return Step(torch.where(applied, operations, NUMBER[IDENTITY]), step.strengths, fill)


def uses_bicubic(interpolation: str, uniform: Tensor) -> Tensor:
    """`[B]` bool: bicubic instead of bilinear; with `random` for half of the images."""
    if interpolation == "random":
        return uniform < 0.5
    return torch.full(uniform.shape, interpolation == "bicubic")


def timm_strengths(share: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
    """Operation → its strengths before the random sign, from shares of timm's largest, 10."""
    height, width = size
    return {
        "rotate": 30 * share,
        "posterize": 4 - (4 * share).trunc(),
        "solarize": (256 - (256 * share).trunc()) / 255,
        "solarize_add": (110 * share).trunc(),
        **dict.fromkeys(FACTORS, 0.9 * share),
        **dict.fromkeys(("shear_x", "shear_y"), 0.3 * share),
        "translate_x": 0.45 * width * share,
        "translate_y": 0.45 * height * share,
    }


def _trivialaugment(uniform: Tensor, size: tuple[int, int]) -> Step:
    """One operation of any strength."""
    ranges = {
        **dict.fromkeys(("shear_x", "shear_y", *FACTORS), 0.99),
        **dict.fromkeys(("translate_x", "translate_y"), TRIVIAL_SHIFT),
        "rotate": 135.0,
    }
    tables = _tables(SPACE, ranges, BINS, 6)
    operations = _choice(uniform[:, 0], len(SPACE))
    strengths = tables[operations, _choice(uniform[:, 1], BINS)]
    return _step(operations, strengths, uniform[:, 2])


def _autoaugment(policy: str, uniform: Tensor, size: tuple[int, int]) -> list[Step]:
    """One of 25 pairs of operations, each with its probability and strength."""
    tables = _tables(NAMES, _randaugment_ranges(size), AUTOAUGMENT_BINS, 4)
    pairs = AUTOAUGMENT[policy]
    chosen = _choice(uniform[:, 0], len(pairs))
    steps = []
    for place in (0, 1):
        names, probabilities, strengths = zip(*(pair[place] for pair in pairs), strict=True)
        numbers = torch.tensor([NUMBER[name] for name in names])[chosen]
        applied = uniform[:, 1 + 2 * place] <= torch.tensor(probabilities).double()[chosen]
        numbers = torch.where(applied, numbers, NUMBER[IDENTITY])
        bins = torch.tensor(strengths)[chosen]
        steps.append(_step(numbers, tables[numbers, bins], uniform[:, 2 + 2 * place]))
    return steps


def _three_augment(uniform: Tensor) -> Step:
    """Grey, solarize or blur."""
    numbers = torch.tensor([NUMBER[name] for name in ("grey", "solarize", "blur")])
    operations = numbers[_choice(uniform[:, 0], 3)]
    low, high = BLUR_SIGMA
    sigma = low + (high - low) * uniform[:, 1]
    strengths = torch.where(operations == NUMBER["blur"], sigma, SOLARIZE_THRESHOLD)
    return Step(operations, strengths)


def jitter_steps(jitter: JitterConfig, uniform: Tensor) -> list[Step]:
    """Colour jitter, in a random order per image. uniform: `[B, 8]`."""
    ranges = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    names = ("brightness", "contrast", "color", "hue")
    numbers, strengths = [], []
    for place, (name, extent) in enumerate(zip(names, ranges, strict=True)):
        middle = 0.0 if name == "hue" else 1.0
        numbers.append(NUMBER[name] if extent else NUMBER[IDENTITY])
        strengths.append(middle + extent * (2 * uniform[:, place] - 1))
    order = uniform[:, 4:].argsort(1)
    operations = torch.tensor(numbers)[order]
    values = torch.stack(strengths, 1).gather(1, order)
    return [Step(operations[:, place], values[:, place]) for place in range(4)]


def _randaugment_ranges(size: tuple[int, int]) -> dict[str, float]:
    height, width = size
    return {
        **dict.fromkeys(("shear_x", "shear_y"), 0.3),
        "translate_x": RANDAUGMENT_SHIFT * width,
        "translate_y": RANDAUGMENT_SHIFT * height,
        "rotate": 30.0,
        **dict.fromkeys(FACTORS, 0.9),
    }


def _tables(names: Sequence[str], ranges: dict[str, float], bins: int, posterized: int) -> Tensor:
    """`[operations, bins]` float64: the strengths of each operation, from weak to strong.

    ranges: operation → largest strength. posterized: bits that the strongest posterize removes.
    """
    table = torch.zeros(len(names), bins, dtype=torch.float64)
    for row, name in enumerate(names):
        if name in ranges:
            table[row] = torch.linspace(0.0, ranges[name], bins)
        elif name == "posterize":
            table[row] = (8 - torch.arange(bins) / ((bins - 1) / posterized)).round()
        elif name == "solarize":
            table[row] = torch.linspace(1.0, 0.0, bins)
    return table


def _choice(uniform: Tensor, count: int) -> Tensor:
    """Uniformly one of 0..count-1."""
    return (uniform * count).long().clamp(max=count - 1)


def _step(operations: Tensor, strengths: Tensor, sign: Tensor) -> Step:
    """Random signs for moves and for factors around 1. operations number `NAMES`."""
    is_signed = torch.tensor([name in SIGNED for name in NAMES])[operations]
    signed = torch.where(is_signed & (sign <= 0.5), -strengths, strengths)
    is_factor = torch.tensor([name in FACTORS for name in NAMES])[operations]
    return Step(operations, torch.where(is_factor, 1 + signed, signed))
