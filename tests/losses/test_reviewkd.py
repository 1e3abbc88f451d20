"""Knowledge review."""

import pytest
import torch
from losses.cases import Case, make_case, settings_of
from losses.map_cases import (
    assert_same,
    exact_case,
    maps,
    pool_by_hand,
    repeat_by_hand,
    run_by_hand,
    total,
)
from torch import Tensor

from kdrun.errors import ConfigError


def by_hand(case: Case) -> Tensor:
    """From the embedding to the first stage, with what was fused so far."""
    assert case.student.embedding is not None
    assert case.teacher.embedding is not None
    embeddings = case.student.embedding[..., None, None], case.teacher.embedding[..., None, None]
    levels = [*maps(case), embeddings]
    losses, fused = [], None
    for block, (s, t) in reversed(list(zip(case.term.blocks, levels, strict=True))):
        x = run_by_hand(block.reduce, s)
        if fused is None:
            fused = x
        else:
            y = repeat_by_hand(fused, (x.shape[2], x.shape[3]))
            weight, bias = block.attention.weight[:, :, 0, 0], block.attention.bias
            half = x.shape[1]
            logits = torch.einsum("bchw,oc->bohw", x, weight[:, :half]) + torch.einsum(
                "bchw,oc->bohw", y, weight[:, half:]
            )
            gates = 1 / (1 + torch.exp(-logits - bias[:, None, None]))
            fused = x * gates[:, 0][:, None] + y * gates[:, 1][:, None]
        fused = repeat_by_hand(fused, (t.shape[2], t.shape[3]))
        losses.append(hierarchical(run_by_hand(block.expand, fused), t))
    return total(losses)


def hierarchical(s: Tensor, t: Tensor) -> Tensor:
    values, weights = [((s - t) ** 2).mean()], [1.0]
    for side in (4, 2, 1):
        if side < s.shape[2]:
            difference = pool_by_hand(s, (side, side)) - pool_by_hand(t, (side, side))
            values.append((difference**2).mean())
            weights.append(weights[-1] / 2)
    parts = [w * v for w, v in zip(weights, values, strict=True)]
    return total(parts) / sum(weights)


@pytest.mark.parametrize("pair", ["same", "cnn", "mlp", "mobilenet"])
def test_agrees_with_the_description(pair: str) -> None:
    case = exact_case("reviewkd", pair)
    assert_same(case, lambda: by_hand(case))


def test_width() -> None:
    widths = [(512, 8), (5, 5)]  # the student's embedding has 8 units
    for asked, expected in widths:
        for block in make_case("reviewkd", width=asked).term.blocks:
            assert block.reduce[0].out_channels == expected


def test_the_deepest_block_fuses_nothing() -> None:
    blocks = make_case("reviewkd").term.blocks
    assert [block.attention is not None for block in blocks] == [True, True, False]


def test_it_warms_up_over_twenty_epochs() -> None:
    assert settings_of("reviewkd")["warmup_epochs"] == 20


def test_golden() -> None:
    assert make_case("reviewkd").loss().item() == pytest.approx(GOLDEN[0], rel=1e-5)
    assert make_case("reviewkd", "mobilenet").loss().item() == pytest.approx(GOLDEN[1], rel=1e-5)


GOLDEN = (5.0121608, 5.884798)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="width=0 must be at least 1"):
        make_case("reviewkd", width=0)
