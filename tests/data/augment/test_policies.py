"""Policies draw torchvision's operations, in its strengths and probabilities."""

import pytest
import torch
from torch import Tensor

from kdrun.config.augment import AugmentConfig, JitterConfig
from kdrun.data.augment import policies
from kdrun.data.augment.boxes import CROP_NUMBERS, ERASE_NUMBERS, crop_boxes, erase_boxes
from kdrun.data.augment.colours import _library
from kdrun.data.augment.policies import NAMES, NUMBER, Step, draw, jitter_steps, number_count, run
from kdrun.data.augment.random_numbers import normal, uniform

pytest.importorskip("timm")
_library()
from timm.data import auto_augment  # noqa: E402
from torchvision.transforms import v2  # noqa: E402
from torchvision.transforms.autoaugment import AutoAugmentPolicy  # noqa: E402

SIZE = (9, 12)
POLICIES = ("randaugment", "autoaugment", "trivialaugment", "three_augment")


def numbers(augment: AugmentConfig, count: int = 2000) -> Tensor:
    return uniform(3, ("policy", 0), torch.arange(count), number_count(augment))


def test_random_numbers_belong_to_their_image() -> None:
    index = torch.tensor([5, 0, 70_000, 5])
    draws = uniform(1, ("crop", 2), index, 4)
    assert torch.equal(draws[0], draws[3])
    assert torch.equal(draws[1:2], uniform(1, ("crop", 2), torch.tensor([0]), 4))
    assert torch.equal(draws[:, :2], uniform(1, ("crop", 2), index, 2))
    for other in (uniform(2, ("crop", 2), index, 4), uniform(1, ("crop", 3), index, 4)):
        assert not (other == draws).any()


def test_random_numbers_are_uniform_and_normal() -> None:
    draws = uniform(0, ("x", 0), torch.arange(20_000), 3)
    assert draws.min() >= 0
    assert draws.max() < 1
    for column in draws.T:
        counts = torch.histc(column, 10, 0, 1)
        assert (counts - 2000).abs().max() < 200
    assert abs(float(torch.corrcoef(draws.T)[0, 1])) < 0.03
    assert abs(float(torch.corrcoef(torch.stack((draws[:-1, 0], draws[1:, 0])))[0, 1])) < 0.03
    bell = normal(0, ("x", 0), torch.arange(20_000), 1)
    assert abs(float(bell.mean())) < 0.03
    assert abs(float(bell.std()) - 1) < 0.03


def operation_name(title: str) -> str:
    """`shear_x` of `ShearX`."""
    return f"{title[:-1].lower()}_{title[-1].lower()}" if title[-1] in "XY" else title.lower()


@pytest.mark.parametrize(
    ("augment", "library", "bins"),
    [
        (AugmentConfig(policy="randaugment", num_ops=1), v2.RandAugment(), 31),
        (AugmentConfig(policy="trivialaugment"), v2.TrivialAugmentWide(), 31),
    ],
    ids=["randaugment", "trivialaugment"],
)
def test_strengths_are_those_of_the_library(
    augment: AugmentConfig, library: v2.Transform, bins: int
) -> None:
    """Every drawn (operation, strength) is one that the library can draw, and all occur."""
    (step,) = draw(augment, numbers(augment), SIZE)
    titles = {}
    for title, (table, signed) in library._AUGMENTATION_SPACE.items():
        values = table(bins, *SIZE)
        values = [0.0] if values is None else [float(value) for value in values]
        if augment.policy == "randaugment" and len(values) > 1:
            values = [values[9]]
        name = operation_name(title)
        offset = 1.0 if name in policies.FACTORS else 0.0
        signs = (1, -1) if signed else (1,)
        titles[NUMBER[name]] = {round(offset + s * value, 9) for value in values for s in signs}
    drawn: dict[int, set[float]] = {}
    for number, strength in zip(step.operations.tolist(), step.strengths.tolist(), strict=True):
        drawn.setdefault(number, set()).add(round(strength, 9))
    assert set(drawn) == set(titles)
    for number, strengths in drawn.items():
        assert strengths <= titles[number], NAMES[number]
        assert len(strengths) >= 0.8 * len(titles[number]), NAMES[number]


@pytest.mark.parametrize("name", ["imagenet", "cifar10", "svhn"])
def test_autoaugment_draws_the_librarys_pairs(name: str) -> None:
    policy = "autoaugment" if name == "imagenet" else f"autoaugment_{name}"
    library = v2.AutoAugment(AutoAugmentPolicy(name))
    chosen = (torch.arange(25) + 0.5) / 25
    for sign in (0.25, 0.75):
        # every operation is applied: 0 is below any probability
        fixed = [torch.zeros(25), torch.full((25,), sign)]
        draws = torch.stack([chosen, *fixed, *fixed], 1).double()
        steps = draw(AugmentConfig(policy=policy), draws, SIZE)
        for row, pair in enumerate(library._policies):
            for step, (title, _, bin_number) in zip(steps, pair, strict=True):
                table, signed = library._AUGMENTATION_SPACE[title]
                values = table(10, *SIZE)
                strength = 0.0 if values is None else float(values[bin_number])
                strength = -strength if signed and sign <= 0.5 else strength
                operation = operation_name(title)
                strength += 1.0 if operation in policies.FACTORS else 0.0
                assert NAMES[int(step.operations[row])] == operation
                assert float(step.strengths[row]) == pytest.approx(strength)
    probabilities = [[entry[1] for entry in pair] for pair in policies.AUTOAUGMENT[policy]]
    assert probabilities == [[entry[1] for entry in pair] for pair in library._policies]


def test_autoaugment_applies_operations_with_their_probability() -> None:
    augment = AugmentConfig(policy="autoaugment")
    first, second = draw(augment, numbers(augment, 20_000), SIZE)
    pairs = policies.AUTOAUGMENT["autoaugment"]
    for place, step in ((0, first), (1, second)):
        expected = sum(pair[place][1] for pair in pairs) / len(pairs)
        share = float((step.operations != NUMBER["identity"]).double().mean())
        assert abs(share - expected) < 0.02


def test_randaugment_takes_strengths_between_two_of_its_bins() -> None:
    steps = [
        draw(
            AugmentConfig(policy="randaugment", magnitude=m), torch.full((1, 4), 0.4).double(), SIZE
        )
        for m in (9, 9.5, 10)
    ]
    low, middle, high = (abs(float(step[0].strengths[0])) for step in steps)
    assert middle == pytest.approx((low + high) / 2)


def test_timm_randaugment_has_timms_operations_and_strengths() -> None:
    titles = auto_augment._RAND_INCREASING_TRANSFORMS
    names = {
        title: operation_name(title.removesuffix("Increasing").removesuffix("Rel"))
        for title in titles
    }
    names["SolarizeAdd"] = "solarize_add"
    assert [names[title] for title in titles] == list(policies.TIMM_SPACE)
    levels = torch.linspace(0, 10, 41, dtype=torch.float64)
    strengths = policies.timm_strengths(levels / 10, SIZE)
    for title, name in names.items():
        level = auto_augment.LEVEL_TO_ARG[title]
        if level is None:
            assert name not in strengths
            continue
        for magnitude, strength in zip(levels.tolist(), strengths[name].tolist(), strict=True):
            (expected,) = level(magnitude, {})
            scale = {"translate_x": SIZE[1], "translate_y": SIZE[0], "solarize": 1 / 255}.get(
                name, 1
            )
            if name in policies.FACTORS:
                expected -= 1
            assert strength == pytest.approx(abs(expected) * scale, abs=1e-9), title


def test_timm_randaugment_applies_half_of_its_operations() -> None:
    augment = AugmentConfig(policy="timm_randaugment", magnitude_std=0.5)
    steps = draw(augment, numbers(augment, 8000), SIZE)
    assert len(steps) == 2
    for step in steps:
        idle = step.operations == NUMBER["identity"]
        assert abs(float(idle.double().mean()) - 0.5) < 0.03
        assert set(step.operations.unique().tolist()) == {
            policies.TIMM_OPERATIONS[NUMBER[name]][0] for name in ("identity", *policies.TIMM_SPACE)
        }
        degrees = step.strengths[step.operations == NUMBER["rotate_bilinear"]]
        assert abs(float((degrees > 0).double().mean()) - 0.5) < 0.15
        assert abs(float(degrees.abs().mean()) - 27) < 1
        assert 0.7 < float(degrees.abs().std()) < 1.8


def test_three_augment_is_grey_solarize_or_blur() -> None:
    augment = AugmentConfig(policy="three_augment")
    (step,) = draw(augment, numbers(augment), SIZE)
    for name, strengths in (("grey", None), ("solarize", (128 / 255,) * 2), ("blur", (0.1, 2.0))):
        rows = step.operations == NUMBER[name]
        assert abs(float(rows.double().mean()) - 1 / 3) < 0.05
        if strengths is not None:
            assert strengths[0] <= float(step.strengths[rows].min())
            assert float(step.strengths[rows].max()) <= strengths[1]


def test_jitter_changes_in_a_random_order_within_its_ranges() -> None:
    steps = jitter_steps(
        JitterConfig(0.4, 0.3, 0.2, 0.1), uniform(0, ("jitter", 0), torch.arange(500), 8)
    )
    orders = torch.stack([step.operations for step in steps], 1)
    assert len(orders.unique(dim=0)) == 24
    ranges = {"brightness": 0.4, "contrast": 0.3, "color": 0.2, "hue": 0.1}
    for step in steps:
        for name, extent in ranges.items():
            values = step.strengths[step.operations == NUMBER[name]] - float(name != "hue")
            assert float(values.abs().max()) <= extent
    only = jitter_steps(JitterConfig(brightness=0.4), torch.full((3, 8), 0.5).double())
    names = {NAMES[n] for step in only for n in step.operations.tolist()}
    assert names == {"brightness", "identity"}


def test_steps_run_one_after_another_on_each_image() -> None:
    pixels = torch.randint(256, (4, 3, 5, 5), dtype=torch.uint8)
    invert, same = NUMBER["invert"], NUMBER["identity"]
    zeros = torch.zeros(4, dtype=torch.float64)
    steps = [
        Step(torch.tensor(row), zeros)
        for row in ([invert, same, invert, same], [invert, invert, same, same])
    ]
    changed = run(pixels.clone(), steps)
    for row, expected in enumerate((pixels[0], 255 - pixels[1], 255 - pixels[2], pixels[3])):
        assert torch.equal(changed[row], expected)


def test_crop_boxes_lie_within_the_image_and_have_its_ranges() -> None:
    draws = uniform(0, ("crop", 0), torch.arange(4000), CROP_NUMBERS)
    top, left, height, width = crop_boxes(draws, (60, 80), (0.08, 1.0), (3 / 4, 4 / 3)).unbind(1)
    assert int(top.min()) >= 0
    assert int((top + height).max()) <= 60
    assert int((left + width).max()) <= 80
    area, ratio = (height * width) / 4800, width / height
    assert 0.07 < float(area.min()) < 0.1
    assert float(area.max()) > 0.9
    assert float(ratio.min()) > 0.7
    assert float(ratio.max()) < 1.45
    assert len(top.unique()) > 40


def test_a_crop_that_never_fits_is_the_largest_allowed_centre() -> None:
    draws = uniform(0, ("crop", 0), torch.arange(3), CROP_NUMBERS)
    box = crop_boxes(draws, (10, 100), (0.9, 1.0), (3 / 4, 4 / 3))
    assert box.tolist() == [[0, 43, 10, 13]] * 3
    box = crop_boxes(draws, (100, 10), (0.9, 1.0), (3 / 4, 4 / 3))
    assert box.tolist() == [[43, 0, 13, 10]] * 3


def test_erased_boxes_occur_with_their_probability_and_fit() -> None:
    draws = uniform(0, ("erasing", 0), torch.arange(4000), ERASE_NUMBERS)
    top, left, height, width = erase_boxes(draws, (32, 32), 0.25, (0.02, 0.33), (0.3, 3.3)).unbind(
        1
    )
    erased = height > 0
    assert abs(float(erased.double().mean()) - 0.25) < 0.03
    assert int((top + height)[erased].max()) <= 32
    assert int((left + width)[erased].max()) <= 32
    area = (height * width)[erased] / 1024
    assert 0.01 < float(area.min()) < 0.05
    assert 0.28 < float(area.max()) < 0.36
