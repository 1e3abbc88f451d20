"""Student, teachers, taps, adapters and scheme put together, untrained or ready to train."""

from dataclasses import dataclass

from kdrun.config import build
from kdrun.config.schema import DistillConfig
from kdrun.data.dataset import Dataset
from kdrun.losses.objective import Objective, objective_of
from kdrun.models.card import NetworkCard
from kdrun.models.taps import Tapped
from kdrun.schemes.base import StudentScheme
from kdrun.schemes.supervised import Supervised
from kdrun.stages.networks import (
    Member,
    final_student,
    make_card,
    new_network,
    own_normalisation,
    tap_networks,
)
from kdrun.stages.session import Session
from kdrun.stages.train_teacher import ReadyTeacher


@dataclass(frozen=True)
class Plan:
    """What is known before anything is trained, from putting untrained networks together."""

    objective: Objective
    student: NetworkCard
    teachers: tuple[NetworkCard, ...]


def rehearse(config: DistillConfig, dataset: Dataset) -> Plan:
    """Put untrained networks together once, so that what cannot fit is said before training.

    Raises ConfigError for networks, taps, shapes or class counts that do not go together.
    """
    objective = objective_of(config)
    cards, teachers = [], []
    for teacher in config.teachers:
        network = new_network(teacher.network, dataset, teacher.seed, "teacher")
        card = make_card(teacher.network, network, dataset, {})
        cards.append(card)
        teachers.append(Member(network, teacher.network, card.normalisation))
    student = _new_student(config, objective, teachers, dataset)
    card = make_card(student.config, student.network, dataset, {})
    _tap(config, objective, student, teachers, dataset)
    return Plan(objective, card, tuple(cards))


def assemble(
    config: DistillConfig, dataset: Dataset, teachers: list[ReadyTeacher], session: Session
) -> tuple[Member, StudentScheme]:
    """Student, taps, adapters and scheme; shapes are read on the CPU."""
    objective = objective_of(config)
    members = [Member(t.network.cpu(), t.config, t.normalisation) for t in teachers]
    member = _new_student(config, objective, members, dataset)
    student, tapped = _tap(config, objective, member, members, dataset)
    compiled = session.runtime.compile
    if not teachers:
        return member, Supervised(student, objective, compiled)
    for teacher in tapped:
        session.place(teacher)
    scheme: StudentScheme = build.call(
        config.scheme.target,
        config.scheme.kwargs,
        "scheme",
        student=student,
        teachers=tapped,
        objective=objective,
        compiled=compiled,
    )
    return member, scheme


def _new_student(
    config: DistillConfig, objective: Objective, teachers: list[Member], dataset: Dataset
) -> Member:
    """The network that is trained and kept."""
    network = new_network(config.student, dataset, config.seed, "student")
    normalisation = own_normalisation(network, dataset.normalisation)
    plain = Member(network, config.student, normalisation)
    return final_student(objective, plain, teachers, dataset, config.seed)


def _tap(
    config: DistillConfig,
    objective: Objective,
    student: Member,
    teachers: list[Member],
    dataset: Dataset,
) -> tuple[Tapped, list[Tapped]]:
    size = config.schedule.batch_size
    return tap_networks(objective, student, teachers, dataset, size, config.seed)
