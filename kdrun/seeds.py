"""Derive independent, named random streams from one seed, without state.

Streams are derived from names, not from each other, so an additional stream or draw changes no
other stream, and a resumed run derives the same seeds as an uninterrupted one.
"""

import hashlib

import torch


def derive(seed: int, *names: str | int) -> int:
    """The 63-bit seed of the stream `names` under `seed`, identical on every machine.

    Order and type of names matter: `derive(0, "a", 1)` differs from `derive(0, "a", "1")`.
    """
    text = "\x1f".join(f"{type(name).__name__}:{name}" for name in (seed, *names))
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator at the start of the stream `names` under `seed`."""
    return torch.Generator().manual_seed(derive(seed, *names))
