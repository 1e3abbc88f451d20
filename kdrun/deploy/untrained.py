"""Latency of networks before they are trained, which weights do not change.

A measurement is stored below `outputs/cache/latency` and read again by later sweeps and searches,
so that a repeated command takes the same decisions.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdrun.config.runtime import ONNX_RUNTIME, PYTORCH
from kdrun.deploy import formats
from kdrun.deploy.latency import time_interleaved
from kdrun.deploy.student import LoadedNetwork
from kdrun.engine.devices import cpu_name
from kdrun.files import canonical_hash, make_folder, read_json, write_json, writing_temporary
from kdrun.limits import finite
from kdrun.models.build import build_network, sample_images
from kdrun.models.card import NetworkCard
from kdrun.own_code import code_entry
from kdrun.runs import footprint
from kdrun.runs.footprint import Conditions

SECONDS_PER_NETWORK = 1.0
PROGRAMS = {PYTORCH: footprint.PYTORCH, ONNX_RUNTIME: footprint.ONNX_RUNTIME}


def conditions_of(program: str, batch_size: int, threads: int) -> Conditions:
    """The conditions of a measurement on this machine. program: pytorch | onnxruntime."""
    return Conditions(PROGRAMS[program], batch_size, threads, cpu_name())


class LatencyStore:
    """Median latencies of untrained networks, in milliseconds; each is measured once.

    writes: whether new measurements are added to the folder.
    """

    def __init__(self, folder: Path, conditions: Conditions, writes: bool = True) -> None:
        self.folder = folder
        self.writes = writes
        self.conditions = conditions
        self.known: dict[str, float] = {}

    def measure(
        self, networks: Sequence[tuple[NetworkCard, str]], say: Callable[[str], None]
    ) -> list[float]:
        """The latency of each network. networks: card and input type (uint8 | float32).

        Networks that were not measured before are measured in turn.
        """
        keys = [self._key(card, dtype) for card, dtype in networks]
        missing = {
            key: network
            for key, network in zip(keys, networks, strict=True)
            if self._find(key) is None
        }
        if missing:
            count = f"{len(missing)} network{'s' * (len(missing) > 1)}"
            say(f"  measuring the latency of {count}, untrained ({self.conditions})")
            self._add(missing)
        return [self.known[key] for key in keys]

    def _key(self, card: NetworkCard, dtype: str) -> str:
        network = card.network
        return canonical_hash(
            {
                "network": [network.target, network.kwargs, network.quantize],
                "input": [repr(card.built_for), card.outputs, dtype],
                "conditions": str(self.conditions),
                "torch": torch.__version__,
                **code_entry(asdict(network)),
            }
        )

    def _find(self, key: str) -> float | None:
        if key not in self.known:
            try:
                value = finite(read_json(self.folder / f"{key}.json")["latency_ms"])
            except (OSError, ValueError, KeyError, TypeError):
                value = None
            if value is not None and value > 0:
                self.known[key] = value
        return self.known.get(key)

    def _add(self, networks: Mapping[str, tuple[NetworkCard, str]]) -> None:
        size = self.conditions.batch_size
        with (
            tempfile.TemporaryDirectory(prefix="kdrun-latency-") as work,
            torch.random.fork_rng([]),
        ):
            calls = {
                key: self._call(card, dtype, Path(work) / f"{key}.onnx")
                for key, (card, dtype) in networks.items()
            }
            measured = time_interleaved(calls, size, SECONDS_PER_NETWORK)
        for key, latency in measured.items():
            self.known[key] = round(latency.p50_ms, 4)
            if self.writes:
                make_folder(self.folder)
                name = networks[key][0].name
                values: dict[str, Any] = {"network": name, "conditions": str(self.conditions)}
                write_json(self.folder / f"{key}.json", {**values, "latency_ms": self.known[key]})

    def _call(self, card: NetworkCard, dtype: str, file: Path) -> Callable[[], Tensor]:
        """One call with random images."""
        network = LoadedNetwork(untrained(card), card)
        shape = (self.conditions.batch_size, *formats.example(card, dtype).shape[1:])
        images = torch.rand(shape)
        if dtype == "uint8":
            images = (255 * images).to(torch.uint8)
        run = formats.module_runner(network)
        if self.conditions.program == PROGRAMS[ONNX_RUNTIME]:
            with writing_temporary(file.parent):
                formats.write_onnx(network, card, dtype, file)
            run = formats.onnx_runner(file, self.conditions.threads)
        return partial(run, images)


def untrained(card: NetworkCard) -> torch.nn.Module:
    """The network of a card with new weights; of a quantised one, with observed ranges."""
    network = build_network(card.network, card.built_for, "student")
    if card.quantize is not None:
        network.train()(torch.rand_like(sample_images(network, card.built_for, 8)))
    return network
