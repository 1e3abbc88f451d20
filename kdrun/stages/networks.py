"""Networks as the stages need them: seeded, with taps, measured, and described by a card."""

from typing import Any

import torch
from torch import nn

from kdrun.config.schema import NetworkConfig
from kdrun.data.dataset import Dataset
from kdrun.errors import ConfigError
from kdrun.losses.base import TermContext
from kdrun.losses.objective import Objective
from kdrun.models.build import build_network
from kdrun.models.card import NetworkCard
from kdrun.models.measure import count_flops, count_parameters
from kdrun.models.normalise import Renormalise
from kdrun.models.pairs import pair_taps
from kdrun.models.taps import Tapped, tap_paths
from kdrun.seeds import derive
from kdrun.types import InputInfo, Normalisation


def new_network(config: NetworkConfig, dataset: Dataset, seed: int, where: str) -> nn.Module:
    """A network with the initial weights of that seed."""
    torch.manual_seed(derive(seed, "weights"))
    return build_network(config, dataset.info, where)


def sample_images(info: InputInfo, batch: int = 2) -> torch.Tensor:
    """Zeros `[batch, C, H, W]` of the data's shape, for dry runs."""
    return torch.zeros(batch, info.in_channels, *info.image_size)


def own_normalisation(network: nn.Module, default: Normalisation) -> Normalisation:
    """The constants a network's pretrained weights expect, or those of the data."""
    own = getattr(network, "normalisation", None)
    return own if isinstance(own, Normalisation) else default


def make_card(
    config: NetworkConfig, network: nn.Module, dataset: Dataset, extra: dict[str, Any]
) -> NetworkCard:
    """The card of a network trained on a data set."""
    return NetworkCard(
        name=config.name,
        target=config.target,
        kwargs=config.kwargs,
        taps=config.taps,
        classes=dataset.classes,
        info=dataset.info,
        normalisation=own_normalisation(network, dataset.normalisation),
        params=count_parameters(network),
        flops=count_flops(network, sample_images(dataset.info, 1)),
        extra=extra,
    )


def tap_networks(
    objective: Objective,
    student: nn.Module,
    student_config: NetworkConfig,
    teachers: list[tuple[nn.Module, NetworkConfig, Normalisation]],
    dataset: Dataset,
    seed: int,
) -> tuple[Tapped, list[Tapped]]:
    """Wrap all networks with the taps that the objective reads, and build its adapters.

    Everything is on the CPU. Raises ConfigError for unknown taps, and for shapes or class counts
    that do not go together.
    """
    sample = sample_images(dataset.info)
    source = dataset.normalisation
    paths = tap_paths(student, sample, student_config.taps)
    teacher_paths = [tap_paths(t, sample, config.taps) for t, config, _ in teachers]
    for name, term in objective.terms.items():
        for place in teacher_paths:
            pairs = pair_taps(term.taps, paths, place)  # type: ignore[arg-type]
            if term.pairs and pairs != term.pairs:
                raise ConfigError(f"loss.{name}.taps name different places in different teachers.")
            term.pairs = pairs  # type: ignore[assignment]
    terms = objective.term_list()
    embedding = any(term.reads_embedding for term in terms)
    names = list(dict.fromkeys(s for term in terms for s, _ in term.pairs))
    teacher_names = list(dict.fromkeys(t for term in terms for _, t in term.pairs))
    tapped = Tapped(student, names, paths, embedding, (source, own_normalisation(student, source)))
    tapped_teachers = [
        Tapped(network, teacher_names, place, embedding, (source, normalisation))
        for (network, _, normalisation), place in zip(teachers, teacher_paths, strict=True)
    ]
    if teachers:
        _build_adapters(objective, tapped, tapped_teachers, dataset, seed)
    return tapped, tapped_teachers


def _build_adapters(
    objective: Objective, student: Tapped, teachers: list[Tapped], dataset: Dataset, seed: int
) -> None:
    sample = sample_images(dataset.info)
    outputs = [_dry(network, sample) for network in (student, *teachers)]
    classes = {output.logits.shape[1] for output in outputs}
    if len(classes) > 1:
        counts = ", ".join(str(output.logits.shape[1]) for output in outputs[1:])
        raise ConfigError(
            f"The teacher has {counts} classes and the student {outputs[0].logits.shape[1]}: "
            "both must have those of the data set."
        )
    context = TermContext(len(dataset.classes), len(dataset.train), derive(seed, "terms"))
    torch.manual_seed(derive(seed, "adapters"))
    objective.build(outputs[0], outputs[1:], context)


def _dry(network: Tapped, sample: torch.Tensor) -> Any:
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    with torch.no_grad():
        outputs = network(sample)
    for module, training in modes:
        module.training = training
    return outputs


def renormalised(network: nn.Module, source: Normalisation, own: Normalisation) -> nn.Module:
    """The network behind a conversion from the loader's constants to its own, if they differ."""
    return network if source == own else nn.Sequential(Renormalise(source, own), network)


def card_facts(card: NetworkCard) -> dict[str, Any]:
    """What `result.json` says of a network's size."""
    return {"name": card.name, "params": card.params, "flops": card.flops}


def dataset_facts(dataset: Dataset) -> dict[str, Any]:
    """What `result.json` says of the data."""
    return {
        "name": dataset.name,
        "num_classes": len(dataset.classes),
        "train_size": len(dataset.train),
        "val_size": len(dataset.val) if dataset.val is not None else 0,
        "test_size": len(dataset.test),
        "fingerprint": dataset.fingerprint,
    }
