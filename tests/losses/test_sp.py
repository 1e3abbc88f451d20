"""Similarity-preserving."""

import pytest
import torch
from losses.cases import Case, make_case
from losses.map_cases import assert_same, exact_case, maps, total
from torch import Tensor

from kdrun.errors import ConfigError
from kdrun.losses.sp import SimilarityPreserving


def gram(features: Tensor) -> Tensor:
    flat = features.reshape(len(features), -1)
    rows = []
    for a in flat:
        row = torch.stack([(a * b).sum() for b in flat])
        rows.append(row / (row * row).sum().sqrt())
    return torch.stack(rows)


def cosine(features: Tensor) -> Tensor:
    flat = features.reshape(len(features), -1)
    return torch.stack(
        [torch.stack([torch.cosine_similarity(a, b, dim=0) for b in flat]) for a in flat]
    )


def by_hand(case: Case) -> Tensor:
    similarity = cosine if case.term.variant == "cosine" else gram
    losses = []
    for s, t in maps(case):
        difference = similarity(t) - similarity(s)
        losses.append(sum(x * x for x in difference.flatten()) / len(s) ** 2)
    return total(losses)


@pytest.mark.parametrize("pair", ["cnn", "mlp", "mobilenet"])
@pytest.mark.parametrize("variant", SimilarityPreserving.variants)
def test_agrees_with_loops(pair: str, variant: str) -> None:
    case = exact_case("sp", pair, batch=4, variant=variant)
    assert_same(case, lambda: by_hand(case))


def test_variants_choose_their_layers() -> None:
    assert SimilarityPreserving().taps == ["last_stage"]
    assert SimilarityPreserving(variant="paper").taps == ["stages"]
    assert SimilarityPreserving(variant="cosine").taps == ["last_stage"]
    assert SimilarityPreserving(["stage1"], "paper").taps == ["stage1"]
    assert make_case("sp", variant="paper").term.symbol() == "SP(stage1+stage2)"


def test_a_zero_row_does_not_blow_up_the_gradient() -> None:
    for variant in SimilarityPreserving.variants:
        case = make_case("sp", variant=variant)
        case = case.changed(lambda t, _: torch.cat([torch.zeros_like(t[:1]), t.detach()[1:]]))
        case.loss().backward()
        gradient = case.student.features["stage2"].grad
        assert gradient is not None
        assert gradient.abs().max() < 100.0


def test_golden() -> None:
    for variant, expected in GOLDEN.items():
        found = make_case("sp", variant=variant).loss()
        assert found.item() == pytest.approx(expected, rel=1e-5)


GOLDEN = {"repdistiller": 0.012012991, "paper": 0.036775529, "cosine": 0.011878785}


def test_unknown_variant() -> None:
    with pytest.raises(ConfigError, match=r"papr does not exist\. Did you mean 'paper'"):
        make_case("sp", variant="papr")
