"""State of torch's random number generators, for checkpoints."""

import torch
from torch import Tensor


def random_state(device: torch.device) -> dict[str, Tensor]:
    """States of the generators in use, by device type."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Restore the states returned by `random_state`."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
