"""Networks tapped for several teachers of different shapes: each term once for each of them."""

import pytest
import torch
from losses.cases import SCHEDULE, made_up_data, settings_of

from kdrun.config.schema import LossConfig, NetworkConfig
from kdrun.distillation.connect import final_student, tap_networks
from kdrun.distillation.networks import Member, new_network
from kdrun.errors import ConfigError
from kdrun.losses.ensemble import Ensemble
from kdrun.losses.objective import Objective, build_objective
from kdrun.schemes.offline import Offline
from kdrun.schemes.pretrain import PretrainScheme, pretrain_phases
from kdrun.types import Batch

DATA = made_up_data(1, 8, 5)
WIDTHS = {"student": [4, 8], "first": [6, 8, 12], "second": [10, 16]}


def member(name: str, seed: int) -> Member:
    config = NetworkConfig(name, "kdrun.models.cnn.ConvNet", {"widths": WIDTHS[name]})
    return Member(new_network(config, DATA, seed, name), config, DATA.normalisation)


def objective(*losses: str, teachers: int) -> Objective:
    terms = {}
    for loss in losses:
        node = settings_of(loss)
        kwargs = {k: v for k, v in node.items() if k not in ("_target_", "weight", "warmup_epochs")}
        terms[loss] = LossConfig(loss, node["_target_"], float(node["weight"]), kwargs)
    ensemble = Ensemble((1 / teachers,) * teachers)
    return build_objective(terms, None, None, None, None, ensemble)


def scheme(*losses: str, teachers: tuple[str, ...]) -> Offline:
    made = objective(*losses, teachers=len(teachers))
    members = [member(name, seed + 1) for seed, name in enumerate(teachers)]
    student, extractor = tap_networks(
        made, member("student", 0), members, DATA, SCHEDULE.batch_size, seed=0
    )
    return Offline(student, extractor, made)


def batch() -> Batch:
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(6, 1, 8, 8, generator=draw)
    return Batch(images, torch.randint(5, (6,), generator=draw), torch.arange(6))


def test_each_teacher_has_adapters_of_its_own_shape() -> None:
    made = scheme("fitnet", "crd", teachers=("first", "second"))
    first, second = made.objective.weighted["fitnet"].instances
    shapes = [{p.shape for p in term.parameters()} for term in (first, second)]
    assert shapes[0] != shapes[1]
    loss = made(batch()).loss
    loss.backward()
    assert all(p.grad is not None for p in made.objective.parameters())


def test_the_names_of_one_teacher_are_those_of_a_single_run() -> None:
    alone = set(scheme("fitnet", teachers=("first",)).state_dict())
    assert not any("more_terms" in name for name in alone)
    both = set(scheme("fitnet", teachers=("first", "second")).state_dict())
    assert alone < both
    assert all(name.startswith("objective.more_terms.1.fitnet.") for name in both - alone)


def test_the_first_teachers_adapters_do_not_depend_on_the_second() -> None:
    alone = scheme("fitnet", teachers=("first",)).state_dict()
    both = scheme("fitnet", teachers=("first", "second")).state_dict()
    assert all(torch.equal(both[name], tensor) for name, tensor in alone.items())


def test_equal_teachers_still_have_random_numbers_of_their_own() -> None:
    made = scheme("fitnet", teachers=("first", "first"))
    first, second = made.objective.weighted["fitnet"].instances
    assert any(
        not torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )


def test_the_loss_is_the_mean_of_the_runs_with_one() -> None:
    values = []
    for teachers in (("first",), ("second",), ("first", "second")):
        made = scheme("sp", "kd", teachers=teachers)
        if teachers == ("second",):  # as it is initialised beside the first
            made._teachers[0].load_state_dict(
                scheme("sp", "kd", teachers=("first", "second"))._teachers[1].state_dict()
            )
        values.append(made(batch()).parts)
    one, two, both = values
    for name in ("sp", "kd"):
        torch.testing.assert_close(both[name], (one[name] + two[name]) / 2)


def test_pre_training_phases_average_over_the_teachers_too() -> None:
    made = scheme("ft", teachers=("first", "second"))
    for weighted in made.objective.weighted.values():
        for term in weighted.instances:
            term.pretrain_epochs = 1  # type: ignore[assignment]
    ((_, name, _),) = pretrain_phases(made)
    found = PretrainScheme(made, name)(batch()).loss
    student, teachers = made.forward_networks(batch())
    values = [
        term.pretrain_loss(student, teacher, batch())
        for term, teacher in zip(made.objective.weighted["ft"].instances, teachers, strict=True)
    ]
    torch.testing.assert_close(found, sum(values) / 2)


def test_a_student_that_borrows_a_classifier_takes_one_teacher() -> None:
    with pytest.raises(ConfigError, match="takes one teacher; there are 2"):
        final_student(
            objective("simkd", teachers=2),
            member("student", 0),
            [member("first", 1), member("second", 2)],
            DATA,
            0,
        )
