"""Factor transfer."""

import pytest
import torch
from losses.cases import Case, make_case
from losses.map_cases import assert_same, exact_case, maps, match_by_hand, run_by_hand, total
from torch import Tensor

from kdrun.errors import ConfigError


def factor(image: Tensor, variant: str) -> Tensor:
    """The normalised factor of one image `[C, H, W]`."""
    if variant == "repdistiller":
        image = sum(channel * channel for channel in image) / len(image)
    elif variant == "paraphraser":
        image = sum(channel for channel in image) / len(image)
    return image / (image * image).sum().sqrt()


def by_hand(case: Case) -> Tensor:
    losses = []
    variant = case.term.variant
    power = 2 if variant == "paraphraser" else 1
    layers = zip(case.term.paraphrasers, case.term.translators, maps(case), strict=True)
    for paraphraser, translator, (s, t) in layers:
        with torch.no_grad():
            theirs = run_by_hand(paraphraser.encoder, t)
        ours = run_by_hand(translator, s)
        images = [
            ((factor(a, variant) - factor(b, variant)).abs() ** power).mean()
            for a, b in zip(*match_by_hand(ours, theirs), strict=True)
        ]
        losses.append(torch.stack(images).mean())
    return total(losses)


@pytest.mark.parametrize(
    ("pair", "settings"),
    [
        ("cnn", {}),
        ("cnn", {"variant": "paper", "taps": ["stages"], "rate": 0.3}),
        ("mobilenet", {"rate": 1.5}),
        ("mobilenet", {"variant": "paper"}),
        ("mlp", {"variant": "paper"}),
        ("cnn", {"variant": "paraphraser"}),
    ],
    ids=str,
)
def test_agrees_with_loops(pair: str, settings: dict[str, object]) -> None:
    case = exact_case("ft", pair, **settings)
    assert_same(case, lambda: by_hand(case))


def test_true_gradients() -> None:
    case = exact_case("ft")
    (tap,) = case.student.features

    def value(features: Tensor, *parameters: Tensor) -> Tensor:
        case.student.features = {tap: features}
        state = dict(zip(names, parameters, strict=True))
        inputs = (case.student, case.teacher, case.batch)
        found: Tensor = torch.func.functional_call(case.term, state, inputs)
        return found

    named = [(n, p) for n, p in case.term.named_parameters() if n.startswith("translators")]
    names = [name for name, _ in named]
    inputs = (case.student.features[tap], *(p.detach().requires_grad_() for _, p in named))
    assert torch.autograd.gradcheck(value, inputs, fast_mode=True, atol=1e-6, rtol=1e-4)


def reconstruction(case: Case) -> Tensor:
    losses = []
    for paraphraser, (_, t) in zip(case.term.paraphrasers, maps(case), strict=True):
        found = run_by_hand(paraphraser.decoder, run_by_hand(paraphraser.encoder, t))
        losses.append(((found - t) ** 2).mean())
    return total(losses)


@pytest.mark.parametrize("pair", ["cnn", "mobilenet"])
def test_paraphraser(pair: str) -> None:
    case = exact_case("ft", pair)
    assert_same(
        case,
        lambda: reconstruction(case),
        lambda: case.term.pretrain_loss(case.student, case.teacher, case.batch),
    )


def test_what_each_phase_moves() -> None:
    case = make_case("ft")
    case.term.pretrain_loss(case.student, case.teacher, case.batch).backward()
    assert all(p.grad is not None for p in case.term.paraphrasers.parameters())
    assert all(p.grad is None for p in case.term.translators.parameters())
    assert all(tensor.grad is None for tensor in case.inputs())
    case = make_case("ft")
    case.loss().backward()
    assert all(p.grad is None for p in case.term.paraphrasers.parameters())
    assert all(p.grad is not None for p in case.term.translators.parameters())
    plan = case.term.pretraining()
    assert plan is not None
    assert (plan.epochs, plan.lr) == (30, 0.01)


def test_width_of_the_factor() -> None:
    for rate, expected in ((0.5, 6), (0.01, 1), (2.0, 24)):
        paraphraser = make_case("ft", rate=rate).term.paraphrasers[0]
        assert paraphraser(torch.zeros(1, 12, 2, 2)).shape == (1, expected, 2, 2)


def test_golden() -> None:
    assert make_case("ft").loss().item() == pytest.approx(GOLDEN[0], rel=1e-5)
    found = make_case("ft", "mobilenet", variant="paper").loss()
    assert found.item() == pytest.approx(GOLDEN[1], rel=1e-5)


GOLDEN = (0.18956538, 0.12920897)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"share only one.*loss\.ft\.variant=paper"):
        make_case("ft", "mlp")
    with pytest.raises(ConfigError, match="rate=0 must be above 0"):
        make_case("ft", rate=0.0)
    with pytest.raises(ConfigError, match="There are: repdistiller, paper"):
        make_case("ft", variant="xyz")
