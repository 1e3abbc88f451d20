"""Networks as the stages need them: seeded, with taps, measured, and described by a card."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from kdrun.config.schema import NetworkConfig
from kdrun.data.dataset import Dataset
from kdrun.errors import ConfigError
from kdrun.losses.base import DistillationLoss, LossContext, NetworkView
from kdrun.losses.objective import Objective
from kdrun.models.build import build_network, sample_images
from kdrun.models.card import NetworkCard
from kdrun.models.dry_run import dry_run
from kdrun.models.measure import count_flops, count_parameters
from kdrun.models.normalise import Renormalise
from kdrun.models.pairs import pair_taps
from kdrun.models.resize import Resize
from kdrun.models.select import SelectOutputs
from kdrun.models.taps import FeatureExtractor, TapPaths, tap_paths
from kdrun.seeds import derive
from kdrun.types import InputInfo, Normalisation, Outputs


def new_network(
    config: NetworkConfig,
    dataset: Dataset,
    seed: int,
    where: str,
    image_size: tuple[int, int] | None = None,
) -> nn.Module:
    """A network with the initial weights of that seed, for images resized to `image_size`."""
    torch.manual_seed(derive(seed, "weights"))
    return build_network(config, seen_by(dataset, image_size), where)


def seen_by(
    dataset: Dataset, image_size: tuple[int, int] | None, channels: int | None = None
) -> InputInfo:
    """What a network sees of a data set's images, resized and with so many channels.

    None leaves either as it is.
    """
    info = dataset.info
    return replace(
        info, image_size=image_size or info.image_size, in_channels=channels or info.in_channels
    )


def own_normalisation(network: nn.Module, default: Normalisation) -> Normalisation:
    """The constants a network's pretrained weights expect, or those of the data."""
    own = getattr(network, "normalisation", None)
    return own if isinstance(own, Normalisation) else default


def make_card(
    config: NetworkConfig,
    network: nn.Module,
    dataset: Dataset,
    extra: dict[str, Any],
    image_size: tuple[int, int] | None = None,
    info: InputInfo | None = None,
) -> NetworkCard:
    """The card of a network trained on a data set, its images resized to `image_size`.

    info: what it sees, where that is more than the size; None: the data set's images.
    """
    info = info or seen_by(dataset, image_size)
    return NetworkCard(
        name=config.name,
        target=config.target,
        kwargs=config.kwargs,
        taps=config.taps,
        classes=dataset.classes,
        info=info,
        normalisation=own_normalisation(network, dataset.normalisation),
        params=count_parameters(network),
        flops=count_flops(network, sample_images(network, info, 1)),
        resize=image_size is not None,
        extra=extra,
    )


@dataclass(frozen=True)
class Member:
    """A network in its place, student or teacher, with what its images need.

    image_size: they are resized to this for it; None: taken as they come.
    outputs: those of its outputs that are the classes, in their order; None: all.
    """

    network: nn.Module
    config: NetworkConfig
    normalisation: Normalisation
    image_size: tuple[int, int] | None = None
    outputs: tuple[int, ...] | None = None

    def info(self, dataset: Dataset) -> InputInfo:
        """What it sees of a data set's images."""
        return seen_by(dataset, self.image_size, len(self.normalisation.mean))

    def paths(self, dataset: Dataset) -> TapPaths:
        """Its taps for the images of a data set."""
        sample = sample_images(self.network, self.info(dataset))
        return tap_paths(self.network, sample, self.config.taps)

    def view(self, dataset: Dataset, paths: TapPaths | None = None) -> NetworkView:
        """The network for losses that need one of its modules."""
        paths = self.paths(dataset) if paths is None else paths
        return NetworkView(self.network, paths, self.outputs, self.info(dataset))


def teacher_member(network: nn.Module, config: NetworkConfig, card: NetworkCard) -> Member:
    """A teacher in its place, as its card says."""
    return Member(network, config, card.normalisation, card.resized, card.outputs)


def final_student(
    objective: Objective, student: Member, teachers: Sequence[Member], dataset: Dataset, seed: int
) -> Member:
    """The student that is trained and kept: the plain one, or what a term makes of it."""
    for term in objective.term_list():
        if not term.replaces_student or not teachers:
            continue
        if len(teachers) > 1:
            raise ConfigError(
                f"loss={term.id} keeps a part of the teacher in the student, so it takes one "
                f"teacher; there are {len(teachers)}. Name one: teacher=..."
            )
        own, other = (m.view(dataset) for m in (student, teachers[0]))
        torch.manual_seed(derive(seed, "final network", term.id))
        made = term.final_network(own, student.config, other, dataset.info)
        student = Member(*made, student.normalisation)
    return student


def tap_networks(
    objective: Objective,
    student: Member,
    teachers: Sequence[Member],
    dataset: Dataset,
    batch_size: int,
    seed: int,
) -> tuple[FeatureExtractor, list[FeatureExtractor]]:
    """Wrap all networks with the taps that the objective reads, and build its adapters.

    Everything is on the CPU. Raises ConfigError for unknown taps, and for shapes or class counts
    that do not go together.
    """
    sample = sample_images(student.network, dataset.info)
    own, *others = (m.paths(dataset) for m in (student, *teachers))
    read_by_student: list[str] = []
    read: list[list[str]] = []
    for position, place in enumerate(others):
        names: list[str] = []
        for term in _terms_of(objective, position):
            term.pairs = pair_taps(term.taps, own, place)
            read_by_student += [pair[0] for pair in term.pairs]
            names += [pair[1] for pair in term.pairs]
        read.append(names)
    embedding = any(term.reads_embedding for term in objective.term_list())
    extractor = [
        FeatureExtractor(
            m.network,
            list(dict.fromkeys(names)),
            place,
            embedding,
            (dataset.normalisation, m.normalisation),
            m.image_size,
            m.outputs,
        )
        for m, names, place in zip(
            (student, *teachers), (read_by_student, *read), (own, *others), strict=True
        )
    ]
    if teachers:
        views = [m.view(dataset, p) for m, p in zip(teachers, others, strict=True)]
        context = LossContext(
            num_classes=len(dataset.classes),
            transfer_size=len(dataset.train),
            targets=dataset.train.targets,
            batch_size=batch_size,
            seed=derive(seed, "terms"),
            student=NetworkView(student.network, own),
            teacher=views[0],
            teachers=objective.ensemble.targets,
        )
        outputs = [_outputs(network, sample) for network in extractor]
        _build_adapters(objective, outputs, views, context, seed)
    return extractor[0], extractor[1:]


def _terms_of(objective: Objective, position: int) -> list[DistillationLoss]:
    """The terms that learn from that teacher alone; none from one of averaged soft targets."""
    within = position < objective.ensemble.targets
    return list(objective.terms_of(position).values()) if within else []


def _build_adapters(
    objective: Objective,
    outputs: Sequence[Outputs],
    views: Sequence[NetworkView],
    context: LossContext,
    seed: int,
) -> None:
    """Let every term make its adapters, with random numbers of its teacher's own."""
    student, *teachers = outputs
    for position, (teacher, view) in enumerate(zip(teachers, views, strict=True)):
        if teacher.logits.shape[1] != student.logits.shape[1]:
            raise ConfigError(
                f"The teacher has {teacher.logits.shape[1]} classes and the student "
                f"{student.logits.shape[1]}: both must have those of the data set."
            )
        number = (position,) if position else ()
        torch.manual_seed(derive(seed, "adapters", *number))
        own = replace(context, seed=derive(seed, "terms", *number), teacher=view, position=position)
        for term in _terms_of(objective, position):
            term.build(student, teacher, own)


def _outputs(network: FeatureExtractor, sample: torch.Tensor) -> Outputs:
    with dry_run(network):
        outputs: Outputs = network(sample)
    return outputs


def renormalised(
    network: nn.Module,
    source: Normalisation,
    own: Normalisation,
    image_size: tuple[int, int] | None = None,
    outputs: Sequence[int] | None = None,
) -> nn.Module:
    """The network between what turns the loader's images into its own and its outputs to classes.

    Before it: a conversion of the constants and channels, if they differ, and a resize to
    `image_size`, if given. After it: a selection of `outputs`, if given.
    """
    before: list[nn.Module] = [] if source == own else [Renormalise(source, own)]
    before += [] if image_size is None else [Resize(image_size)]
    after: list[nn.Module] = [] if outputs is None else [SelectOutputs(outputs)]
    return nn.Sequential(*before, network, *after) if before or after else network


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
