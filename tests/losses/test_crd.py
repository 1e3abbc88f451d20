"""Contrastive representation distillation."""

import math
from collections import Counter

import pytest
import torch
from losses.cases import Case, make_case, map_outputs
from losses.map_cases import assert_same, exact_case, total
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.losses.crd import ContrastiveDistillation
from kdrun.losses.negatives import NegativeSampler

IMAGES = 80  # of the made-up transfer set


def direction(layer: nn.Module, row: Tensor) -> Tensor:
    assert isinstance(layer, nn.Linear)
    out = layer.weight @ row + layer.bias
    return out / (out * out).sum().sqrt()


def one_side(anchors: list[Tensor], memory: Tensor, columns: Tensor, tau: float) -> Tensor:
    """Gathered rows, h and Z as they stand in the paper, image by image."""
    scores = [
        [((anchor * memory[c]).sum() / tau).exp() for c in row.tolist()]
        for anchor, row in zip(anchors, columns, strict=True)
    ]
    everything = torch.stack([score for row in scores for score in row])
    constant = everything.mean().detach() * len(memory)
    noise = (columns.shape[1] - 1) / len(memory)
    losses = []
    for positive, *negatives in scores:
        h = positive / constant
        losses.append(-(h / (h + noise)).log())
        losses += [-(noise / (score / constant + noise)).log() for score in negatives]
    return total(losses) / len(anchors)


def by_hand(case: Case) -> Tensor:
    term, columns = case.term, case.term._columns(case.batch)
    e_s = [direction(term.embed_student, row) for row in case.student.embedding]
    e_t = [direction(term.embed_teacher, row) for row in case.teacher.embedding]
    return one_side(e_s, term.teacher_side.rows, columns, term.tau) + one_side(
        e_t, term.student_side.rows, columns, term.tau
    )


@pytest.mark.parametrize("pair", ["cnn", "mobilenet", "mlp"])
@pytest.mark.parametrize("settings", [{}, {"variant": "relax"}, {"tau": 0.5, "dim": 6}], ids=str)
def test_agrees_with_gathered_memories(pair: str, settings: dict[str, object]) -> None:
    case = exact_case("crd", pair, negatives=12, **settings)
    assert_same(case, lambda: by_hand(case))


def test_the_constants_are_the_first_batchs() -> None:
    case = make_case("crd", negatives=20)
    assert case.term.teacher_side.log_constant.isinf()
    first = case.loss()
    kept = case.term.teacher_side.log_constant.clone()
    assert kept.isfinite()
    case = case.changed(lambda tensor, _: torch.randn_like(tensor))
    assert case.loss() != first
    assert torch.equal(case.term.teacher_side.log_constant, kept)


def test_the_memories_move_after_the_step_only() -> None:
    case = make_case("crd", negatives=20, momentum=0.25)
    term, index = case.term, case.batch.index
    before = term.student_side.rows.clone()
    case.loss().backward()
    assert torch.equal(term.student_side.rows, before)
    term.after_step()
    for n, place in enumerate(index.tolist()):
        e = direction(term.embed_student, case.student.embedding[n])
        moved = 0.25 * before[place] + 0.75 * e
        torch.testing.assert_close(term.student_side.rows[place], moved / moved.norm())
    others = [place for place in range(IMAGES) if place not in index.tolist()]
    assert torch.equal(term.student_side.rows[others], before[others])
    assert int(term.step) == 1
    term.after_step()  # nothing was seen since
    assert int(term.step) == 1


def test_the_positive_comes_first() -> None:
    case = make_case("crd", negatives=20)
    assert torch.equal(case.term._columns(case.batch)[:, 0], case.batch.index)
    case = make_case("crd", negatives=20, variant="relax")
    positives = case.term._columns(case.batch)[:, 0]
    assert torch.equal(case.term.sampler.targets[positives], case.batch.targets)
    assert not torch.equal(positives, case.batch.index)


TARGETS = torch.tensor([0] * 5 + [1] * 17 + [2] * 30 + [4] * 11)[torch.randperm(63)]


def draws(count: int, steps: int = 40, seed: int = 3) -> tuple[Tensor, Tensor]:
    """Classes `[40 · 6]` and what was drawn for them, `[40 · 6, count]`."""
    sampler = NegativeSampler(TARGETS, 5, count, seed)
    classes = torch.tensor([0, 1, 2, 4, 2, 1])
    found = [sampler.negatives(classes, torch.tensor(step)) for step in range(steps)]
    return classes.repeat(steps), torch.cat(found)


def test_negatives_are_different_images_of_other_classes() -> None:
    classes, found = draws(30)
    assert (TARGETS[found] != classes[:, None]).all()
    assert all(len(set(row)) == 30 for row in found.tolist())


def test_every_other_image_is_as_likely() -> None:
    classes, found = draws(10, steps=3000)
    for number in (0, 2):
        others = len(TARGETS) - int(TARGETS.eq(number).sum())
        counts = Counter(found[classes == number].flatten().tolist())
        expected = found[classes == number].numel() / others
        assert len(counts) == others
        spread = sum((count - expected) ** 2 for count in counts.values()) / len(counts)
        assert spread < 3.0 * expected  # about the variance of a Poisson number


def test_no_two_images_go_together() -> None:
    classes, found = draws(10, steps=3000)
    rows = found[classes == 0]
    drawn = torch.zeros(len(rows), len(TARGETS)).scatter(1, rows, 1.0)
    others = TARGETS != 0
    together = (drawn.T @ drawn)[others][:, others] / len(rows)
    together = together[~torch.eye(len(together), dtype=torch.bool)]
    expected = 10 / 58 * 9 / 57
    assert together.mean() == pytest.approx(expected, rel=1e-5)
    assert together.max() < 2.0 * expected
    # a step has no factor in common with 58: half the round apart is out of reach
    assert (together < 0.5 * expected).float().mean() < 1.5 / 58


def test_a_draw_follows_from_seed_and_step() -> None:
    _, first = draws(10)
    _, again = draws(10)
    _, other = draws(10, seed=4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    rows = {tuple(row) for row in first.tolist()}
    assert len(rows) > 0.9 * len(first)


def test_scarce_others_are_drawn_with_replacement() -> None:
    classes, found = draws(50)  # 33 others of class 2, 46 of class 1, 58 of class 0, 52 of class 4
    assert (TARGETS[found] != classes[:, None]).all()
    for number, distinct in ((0, True), (4, True), (1, False), (2, False)):
        lengths = {len(set(row)) for row in found[classes == number].tolist()}
        assert (lengths == {50}) == distinct
    assert max(lengths) > 20


def test_golden() -> None:
    for variant, expected in GOLDEN.items():
        found = make_case("crd", "mobilenet", variant=variant, negatives=40).loss()
        assert found.item() == pytest.approx(expected, rel=1e-5)


GOLDEN = {"exact": 11.442216, "relax": 10.798687}


def test_low_temperatures_overflow_nothing() -> None:
    case = make_case("crd", negatives=20, tau=1e-3)
    loss = case.loss()
    loss.backward()
    assert math.isfinite(loss.item())
    assert case.student.embedding.grad.isfinite().all()


def test_it_says_what_it_keeps() -> None:
    (note,) = make_case("crd").term.notes()
    assert "two memories of 80 × 128 numbers" in note


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="two classes or more"):
        NegativeSampler(torch.ones(9, dtype=torch.int64), 3, 4, 0)
    with pytest.raises(ConfigError, match="negatives=0"):
        ContrastiveDistillation(negatives=0)
    with pytest.raises(ConfigError, match=r"momentum=1 must lie in \[0, 1\)"):
        ContrastiveDistillation(momentum=1.0)
    with pytest.raises(ConfigError, match="tau=0 must be above 0"):
        ContrastiveDistillation(tau=0.0)


def test_another_batch_size_is_no_matter() -> None:
    case = make_case("crd", negatives=20)
    case.loss()
    half = map_outputs(case.teacher, lambda tensor, _: tensor[:3])
    ours = map_outputs(case.student, lambda tensor, _: tensor[:3])
    case.batch.targets, case.batch.index = case.batch.targets[:3], case.batch.index[:3]
    assert case.term(ours, half, case.batch).isfinite()
