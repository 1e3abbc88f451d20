"""Student, teachers, taps, adapters and scheme put together, untrained or ready to train."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from kdrun.config import build
from kdrun.config.schema import DistillConfig, NetworkConfig
from kdrun.data.dataset import Dataset
from kdrun.distillation.connect import Connected, connect
from kdrun.distillation.initial_weights import load_start
from kdrun.distillation.loaded_teacher import load_teacher
from kdrun.distillation.networks import (
    Member,
    make_card,
    new_network,
    own_normalisation,
    teacher_member,
)
from kdrun.distillation.prepare_teachers import prepare_teachers
from kdrun.distillation.session import Session
from kdrun.distillation.teacher import Teacher
from kdrun.distillation.token_heads import require_no_heads, require_taught_heads, token_notes
from kdrun.engine import distributed
from kdrun.errors import ConfigError
from kdrun.losses.objective import Objective, objective_of
from kdrun.models.build import sample_images
from kdrun.models.card import NetworkCard
from kdrun.models.features.taps import tap_paths
from kdrun.schemes.base import StudentScheme
from kdrun.schemes.context import SchemeContext, TrainableNetwork
from kdrun.schemes.supervised import Supervised
from kdrun.seeds import derive


@dataclass(frozen=True)
class Plan:
    """What is known before anything is trained, from putting untrained networks together.

    objective: what is minimised, in words. notes: sentences of the losses and the scheme.
    facts: what the scheme adds to `result.json`.
    start: notes on the weights the student starts from.
    """

    objective: str
    student: NetworkCard
    teachers: tuple[NetworkCard, ...]
    peers: tuple[NetworkCard, ...]
    notes: tuple[str, ...]
    facts: dict[str, Any]
    start: tuple[str, ...] = ()


def dry_run_build(config: DistillConfig, dataset: Dataset, given: int | None = None) -> Plan:
    """Put untrained networks together once, so that what cannot fit is said before training.

    given: how many of the teachers are trained on labels; others are distilled before. None: all.
    Raises ConfigError for networks, taps, shapes or class counts that do not go together.
    """
    objective = objective_of(config)
    cards, teachers = [], []
    notes: list[str] = []
    for number, teacher in enumerate(config.teachers):
        network, card, loaded_notes = _teacher(config, number, dataset)
        cards.append(card)
        teachers.append(teacher_member(network, card.network, card))
        notes += loaded_notes
        if teacher.checkpoint is None and (given is None or number < given):
            require_no_heads(network)
    plain, start = _new_student(config, dataset)
    connected = _connect(config, objective, plain, teachers, dataset)
    student = connected.member
    require_taught_heads(objective, student.network)
    card = make_card(student.config, student.network, dataset, {})
    scheme = _scheme(
        config, dataset, objective, connected, connected.teachers, config.runtime.compile
    )
    notes += [note for term in objective.loss_list() for note in term.notes()]
    return Plan(
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


def _teacher(
    config: DistillConfig, number: int, dataset: Dataset
) -> tuple[nn.Module, NetworkCard, tuple[str, ...]]:
    """A teacher, its card and what is noted of it: with its weights if they are in a file."""
    teacher = config.teachers[number]
    if teacher.checkpoint is not None:
        where = f"teacher{number + 1}" if len(config.teachers) > 1 else "teacher"
        loaded = load_teacher(teacher, dataset, where)
        return loaded.network, loaded.card, loaded.notes
    size = teacher.image_size
    network = new_network(teacher.network, dataset, teacher.seed, "teacher", size)
    return network, make_card(teacher.network, network, dataset, {}, size), ()


def build_scheme(
    config: DistillConfig, dataset: Dataset, teachers: list[Teacher], session: Session
) -> tuple[Member, StudentScheme]:
    """Student, taps, adapters and scheme; shapes are read on the CPU."""
    objective = objective_of(config)
    members = [teacher_member(t.network.cpu(), t.config, t.card) for t in teachers]
    plain, _ = _new_student(config, dataset)
    connected = _connect(config, objective, plain, members, dataset)
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
    """The scheme of a configuration; the student on labels alone has none."""
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
    if config.scheme.peers and not scheme.trains_peers:
        raise ConfigError(
            f"scheme={config.scheme.name} trains no peers: leave out scheme.peers, or choose "
            "scheme=online."
        )
    return scheme


def _given(
    config: DistillConfig, dataset: Dataset, objective: Objective, member: Member, compiled: bool
) -> SchemeContext:
    """What schemes without a frozen teacher build their networks and terms from."""
    sample = sample_images(member.network, dataset.info)

    def learner(member: Member, seed: int) -> TrainableNetwork:
        paths = tap_paths(member.network, sample, member.config.taps)
        constants = (dataset.normalisation, member.normalisation)
        return TrainableNetwork(member.network, member.config, paths, constants, seed)

    def another(network: NetworkConfig, what: str, number: int) -> TrainableNetwork:
        seed = derive(config.seed, what, number)
        made = new_network(network, dataset, seed, "scheme.peers" if what == "peer" else "student")
        normalisation = own_normalisation(made, dataset.normalisation)
        return learner(Member(made, network, normalisation), seed)

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
    """The student as configured, and notes on the weights it starts from."""
    network = new_network(config.student, dataset, config.seed, "student")
    notes = load_start(network, config, dataset)
    normalisation = own_normalisation(network, dataset.normalisation)
    return Member(network, config.student, normalisation), notes


def _connect(
    config: DistillConfig,
    objective: Objective,
    student: Member,
    teachers: list[Member],
    dataset: Dataset,
) -> Connected:
    size = config.schedule.batch_size
    return connect(objective, student, teachers, dataset, size, config.seed)
