"""Seeds for every stream of random numbers, derived from one seed without any state.

A stream is named, not drawn from another one, so that using one more stream, or one more number
of a stream, changes no other stream; a resumed run derives the same seeds as an uninterrupted one.
"""

import hashlib

import torch


def derive(seed: int, *names: str | int) -> int:
    """The 63-bit seed of the stream `names` under `seed`, the same on every machine.

    Names are told apart by order and type: `derive(0, "a", 1)` differs from `derive(0, "a", "1")`.
    """
    text = "\x1f".join(f"{type(name).__name__}:{name}" for name in (seed, *names))
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator at the start of the stream `names` under `seed`."""
    return torch.Generator().manual_seed(derive(seed, *names))
