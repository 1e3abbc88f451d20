"""When answers are near chance, and when one order of classes beats another."""

import pytest
import torch

from kdrun.teachers.chance import Answers, answers, clearly_better


def logits(given: torch.Tensor, classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(given, classes).float()


def test_chance_counts_how_often_each_class_is_answered() -> None:
    targets = torch.tensor([0] * 90 + [1] * 10)
    always = answers(logits(torch.zeros(100, dtype=torch.int64), 2), targets)
    assert (always.right, always.top1, always.majority) == (90, 90.0, 0.9)
    assert always.chance == pytest.approx(0.9)  # 90 % right, and worth nothing
    assert always.near_chance
    perfect = answers(logits(targets, 2), targets)
    assert perfect.chance == pytest.approx(0.81 + 0.01)
    assert not perfect.near_chance


@pytest.mark.parametrize(
    ("right", "count", "chance", "near"),
    [
        (100, 1000, 0.1, True),
        (128, 1000, 0.1, True),  # 100 + 3·√90 = 128.46
        (129, 1000, 0.1, False),
        (5, 5, 0.5, False),  # few images: half way from chance to all right
        (4, 5, 0.5, False),
        (3, 5, 0.5, True),
        (0, 100, 0.01, True),
        (716, 1000, 0.01, False),
    ],
)
def test_three_standard_errors(right: int, count: int, chance: float, near: bool) -> None:
    assert Answers(right, count, chance, chance).near_chance == near


def test_random_answers_are_near_chance() -> None:
    stream = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 10, (2000,), generator=stream)
    noise = torch.rand(2000, 10, generator=stream)
    assert answers(noise, targets).near_chance
    some = torch.where(torch.rand(2000, 1, generator=stream) < 0.1, logits(targets, 10), noise)
    assert not answers(some, targets).near_chance


@pytest.mark.parametrize(
    ("won", "lost", "better"),
    [(9, 0, False), (10, 0, True), (60, 40, False), (70, 30, True), (30, 70, False)],
)
def test_orders_are_compared_on_the_images_that_differ(won: int, lost: int, better: bool) -> None:
    targets = torch.zeros(won + lost + 50, dtype=torch.int64)
    one = torch.tensor([0] * won + [1] * lost + [0] * 50)
    other = torch.tensor([1] * won + [0] * lost + [0] * 50)
    assert clearly_better(logits(one, 2), logits(other, 2), targets) == better
