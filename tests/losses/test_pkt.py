"""Probabilistic knowledge transfer."""

import pytest
import torch
from losses.cases import Case, make_case
from losses.map_cases import assert_same, exact_case, total
from torch import Tensor

from kdrun.errors import ConfigError
from kdrun.losses.pkt import ProbabilisticTransfer


def likelihood(embeddings: Tensor, i: int, j: int, with_itself: bool) -> Tensor:
    """The probability that j is the neighbour of i."""

    def kernel(k: int) -> Tensor:
        a, b = embeddings[i], embeddings[k]
        return (1 + (a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()) / 2

    others = [k for k in range(len(embeddings)) if with_itself or k != i]
    return kernel(j) / total([kernel(k) for k in others])


def by_hand(case: Case) -> Tensor:
    s, t = case.student.embedding, case.teacher.embedding
    own = case.term.variant == "repdistiller"
    terms = []
    for i in range(len(s)):
        for j in range(len(s)):
            if own or i != j:
                p, q = likelihood(t, i, j, own), likelihood(s, i, j, own)
                terms.append(p * ((p + 1e-7) / (q + 1e-7)).log())
    return total(terms) / (len(terms) if own else 1)


@pytest.mark.parametrize("pair", ["cnn", "mobilenet", "mlp"])
@pytest.mark.parametrize("variant", ["repdistiller", "paper"])
def test_agrees_with_loops(pair: str, variant: str) -> None:
    case = exact_case("pkt", pair, batch=4, variant=variant)
    assert_same(case, lambda: by_hand(case))


def test_only_directions_count() -> None:
    case = make_case("pkt")
    expected = case.loss()
    case.teacher.embedding *= torch.rand(6, 1) + 0.5
    torch.testing.assert_close(case.loss(), expected)


def test_one_image_has_no_other_neighbour() -> None:
    assert make_case("pkt", batch=1).loss() == 0
    assert make_case("pkt", batch=1, variant="paper").loss() == 0


def test_golden() -> None:
    for variant, expected in GOLDEN.items():
        found = make_case("pkt", "mobilenet", variant=variant).loss()
        assert found.item() == pytest.approx(expected, rel=1e-5)


GOLDEN = {"repdistiller": 0.0023770519, "paper": 0.11696087}


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="variant=papper does not exist"):
        ProbabilisticTransfer(variant="papper")
