"""Streams of random numbers: stable, separate, without state."""

import torch

from kdrun.seeds import derive, generator


def test_derived_seeds_never_change() -> None:
    # Frozen: a change would silently change every run of every user.
    assert derive(0, "order", 0) == 8583472643440827079
    assert derive(7) == 6004973032220282954


def test_names_are_told_apart_by_value_order_and_type() -> None:
    seeds = {
        derive(0),
        derive(1),
        derive(0, "a"),
        derive(0, "a", "b"),
        derive(0, "b", "a"),
        derive(0, "ab"),
        derive(0, "a", 1),
        derive(0, "a", "1"),
        derive(0, "a1"),
    }
    assert len(seeds) == 9


def test_seeds_have_63_bits() -> None:
    seeds = [derive(0, "x", number) for number in range(200)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62


def test_a_generator_starts_its_stream_anew_and_leaves_the_global_one_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first = torch.rand(5, generator=generator(0, "order", 2))
    again = torch.rand(5, generator=generator(0, "order", 2))
    assert torch.equal(first, again)
    assert torch.equal(torch.rand(4), expected)
