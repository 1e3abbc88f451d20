"""Build student, teachers, taps, adapters and scheme, for a dry run or for training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from kdrun.config import build
from kdrun.config.schema import AugmentConfig, DistillConfig, NetworkConfig, named_teachers
from kdrun.data.dataset import Dataset
from kdrun.distillation.class_embeddings import measured_embeddings, placeholder_embeddings
from kdrun.distillation.connect import Connected, EmbeddingSource, connect
from kdrun.distillation.fine_tuning import classifier_for
from kdrun.distillation.initial_weights import has_trained_statistics, load_start
from kdrun.distillation.networks import (
    Member,
    make_card,
    new_network,
    own_normalisation,
    teacher_member,
)
from kdrun.distillation.new_teacher import teacher_network
from kdrun.distillation.prepare_teachers import prepare_teachers
from kdrun.distillation.session import Session
from kdrun.distillation.teacher import Teacher
from kdrun.distillation.token_heads import require_no_heads, require_taught_heads, token_notes
from kdrun.engine import distributed
from kdrun.errors import ConfigError
from kdrun.losses.objective import Objective, WeightedLoss, objective_of
from kdrun.models.build import sample_images
from kdrun.models.card import NetworkCard
from kdrun.models.features.taps import tap_paths
from kdrun.models.quantisation.quantise import format_quantised, quantisers_of
from kdrun.schemes.base import StudentScheme
from kdrun.schemes.context import SchemeContext, TrainableNetwork
from kdrun.schemes.supervised import Supervised
from kdrun.seeds import derive


@dataclass(frozen=True)
class BuildPlan:
    """What a run will train, known from building its networks once.

    objective: the minimised sum, as text. notes: of the losses and the scheme, for the header.
    facts: entries of `result.json` from the scheme. start: notes on `student.checkpoint`.
    """

    objective: str
    student: NetworkCard
    teachers: tuple[NetworkCard, ...]
    peers: tuple[NetworkCard, ...]
    notes: tuple[str, ...]
    facts: dict[str, Any]
    start: tuple[str, ...] = ()


def dry_run_build(config: DistillConfig, dataset: Dataset, given: int | None = None) -> BuildPlan:
    """Build untrained networks once, to reject incompatible settings early.

    given: number of teachers trained on labels; the others are earlier students. None: all.
    Raises ConfigError for networks, taps, shapes or class counts that are incompatible.
    """
    objective = objective_of(config)
    cards, teachers = [], []
    notes: list[str] = []
    for number, (where, teacher) in enumerate(named_teachers(config.teachers)):
        network, card, its_notes = teacher_network(teacher, dataset, where)
        cards.append(card)
        teachers.append(teacher_member(network, card.network, card))
        notes += its_notes
        if teacher.checkpoint is None and (given is None or number < given):
            require_no_heads(network)
    plain, start = _new_student(config, dataset)
    connected = _connect(config, objective, plain, teachers, dataset, placeholder_embeddings)
    student = connected.member
    require_taught_heads(objective, student.network)
    classifier_for(student.network, config.schedule, dataset.info.num_classes)
    card = make_card(student.config, student.network, dataset, {})
    scheme = _scheme(
        config, dataset, objective, connected, connected.teachers, config.runtime.compile
    )
    if scheme.reads_partner and config.schedule.repeated_augmentation > 1:
        raise ConfigError(
            f"scheme={config.scheme.name} pairs images of one class, which "
            "schedule.repeated_augmentation does not: set it to 1."
        )
    notes += [note for loss in objective.loss_list() for note in loss.notes()]
    notes += _recipe_notes(config, objective)
    if config.student.quantize is not None:
        notes.append(f"student {format_quantised(student.network)}")
    return BuildPlan(
        objective=scheme.describe(),
        student=card,
        teachers=tuple(cards),
        peers=tuple(
            make_card(one.learner.config, one.learner.network, dataset, {})
            for one in scheme.companions()
            if one.learner is not None
        ),
        notes=(*notes, *scheme.notes(), *token_notes(objective, student.network, config.alone)),
        facts=scheme.facts(),
        start=tuple(start),
    )


def _recipe_notes(config: DistillConfig, objective: Objective) -> list[str]:
    """Settings that do less than they seem to: of small batches, augmentation, short trainings."""
    schedule, notes = config.schedule, []
    names = [loss.id for loss in objective.loss_list() if loss.compares_samples]
    if schedule.accumulate > 1 and names:
        size = schedule.batch_size
        notes.append(
            f"{', '.join(names)} compare{'s' * (len(names) == 1)} the samples of a batch: of {size}"
            f" images, not of the {size * schedule.accumulate} of an optimiser step"
        )
    repeats = schedule.repeated_augmentation
    if repeats > 1 and config.augment.pixels_only == AugmentConfig():
        notes.append(
            f"schedule.repeated_augmentation={repeats} repeats equal images, because nothing is "
            "augmented: choose an augmentation, e.g. augment=randaugment"
        )
    if schedule.steps is None:
        for name, weighted in objective.weighted.items():
            notes += weight_change_notes(name, weighted, schedule.epochs)
    return notes


def weight_change_notes(name: str, weighted: WeightedLoss, epochs: int) -> list[str]:
    """A warm-up or decay of a loss's weight that the training is too short for."""
    notes = []
    if weighted.warmup_epochs > epochs:
        share = 100 * weighted.factor(epochs - 1, epochs)
        notes.append(
            f"the weight of loss={name} is full from epoch {weighted.warmup_epochs}, but the "
            f"training ends after {epochs}, at {share:.0f} % of it: loss.{name}.warmup_epochs"
        )
    if weighted.decay_after and weighted.decay_after >= epochs - 1:
        notes.append(
            f"loss.{name}.decay_after={weighted.decay_after} has no effect: the training ends "
            f"after {epochs} epochs"
        )
    return notes


def build_scheme(
    config: DistillConfig, dataset: Dataset, teachers: list[Teacher], session: Session
) -> tuple[Member, StudentScheme]:
    """Build the student and its scheme for training. Shapes are inferred on the CPU."""
    objective = objective_of(config)
    members = [teacher_member(t.network.cpu(), t.config, t.card) for t in teachers]
    plain, _ = _new_student(config, dataset)
    embeddings = measured_embeddings(config, dataset, session, teachers)
    connected = _connect(config, objective, plain, members, dataset, embeddings)
    compiled = session.runtime.compile
    ready = prepare_teachers(config, dataset, session, objective, connected.teachers, teachers)
    distributed.gather_from(*ready)
    return connected.member, _scheme(config, dataset, objective, connected, ready, compiled)


def _scheme(
    config: DistillConfig,
    dataset: Dataset,
    objective: Objective,
    connected: Connected,
    teachers: Sequence[Any],
    compiled: bool,
) -> StudentScheme:
    """The configured scheme; `Supervised` when training on labels only."""
    student = connected.student
    if config.labels_only:
        return Supervised(student, objective, compiled)
    scheme: StudentScheme = build.call(
        config.scheme.target,
        config.scheme.kwargs,
        "scheme",
        student=student,
        teachers=teachers,
        objective=objective,
        compiled=compiled,
        given=_given(config, dataset, objective, connected.member, compiled),
    )
    _refuse_conflicts(config, scheme)
    return scheme


def _refuse_conflicts(config: DistillConfig, scheme: StudentScheme) -> None:
    """Raise ConfigError for settings that the scheme could not follow."""
    if scheme.reads_partner and config.augment.mixes:
        raise ConfigError(
            f"scheme={config.scheme.name} compares two images of one class, and a mixed image has "
            "two classes: leave out augment.mixup and augment.cutmix, or choose another scheme."
        )
    if config.scheme.peers and not scheme.trains_peers:
        raise ConfigError(
            f"scheme={config.scheme.name} trains no peers: leave out scheme.peers, or choose "
            "scheme=online."
        )
    of_one_network: dict[str, float] = {"freeze_epochs": 0, "freeze_bn_stats": False}
    of_one_network |= {"backbone_lr_factor": 1.0, "layer_decay": 1.0}
    for name, default in of_one_network.items():
        if scheme.trains_peers and getattr(config.schedule, name) != default:
            raise ConfigError(
                f"schedule.{name} would change only the first peer of scheme={config.scheme.name}: "
                "leave it out, so that the peers train alike."
            )


def _given(
    config: DistillConfig, dataset: Dataset, objective: Objective, member: Member, compiled: bool
) -> SchemeContext:
    """The context from which schemes without frozen teachers build networks and losses."""
    sample = sample_images(member.network, dataset.info)

    def learner(member: Member, seed: int) -> TrainableNetwork:
        paths = tap_paths(member.network, sample, member.config.taps)
        constants = (dataset.normalisation, member.normalisation)
        return TrainableNetwork(member.network, member.config, paths, constants, seed)

    def another(network: NetworkConfig, what: str, number: int) -> TrainableNetwork:
        seed = derive(config.seed, what, number)
        module = new_network(
            network, dataset, seed, "scheme.peers" if what == "peer" else "student"
        )
        normalisation = own_normalisation(module, dataset.normalisation)
        return learner(Member(module, network, normalisation), seed)

    return SchemeContext(
        student=learner(member, config.seed),
        peers=tuple(another(peer, "peer", i) for i, peer in enumerate(config.scheme.peers, 2)),
        another=partial(another, config.student, "branch"),
        objective=objective,
        new_objective=lambda: objective_of(config),
        sample=sample,
        num_classes=len(dataset.classes),
        targets=dataset.train.targets,
        batch_size=config.schedule.batch_size,
        seed=config.seed,
        compiled=compiled,
    )


def _new_student(config: DistillConfig, dataset: Dataset) -> tuple[Member, list[str]]:
    """(untrained student in full precision, notes on `student.checkpoint`)."""
    plain = replace(config.student, quantize=None)
    network = new_network(plain, dataset, config.seed, "student")
    notes = load_start(network, config, dataset)
    normalisation = own_normalisation(network, dataset.normalisation)
    return Member(network, plain, normalisation), notes


def _connect(
    config: DistillConfig,
    objective: Objective,
    student: Member,
    teachers: list[Member],
    dataset: Dataset,
    embeddings: EmbeddingSource,
) -> Connected:
    size = config.schedule.batch_size
    quantize = config.student.quantize
    connected = connect(
        objective, student, teachers, dataset, size, config.seed, embeddings, quantize
    )
    quantisers = quantisers_of(connected.member.network)
    if quantisers is not None and has_trained_statistics(config):
        quantisers.statistics_after = 0.0
    return connected
