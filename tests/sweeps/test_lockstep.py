"""Which jobs go together, and whose turn it is."""

import threading
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module

from kdrun.config import composition, parse
from kdrun.config.schema import DistillConfig
from kdrun.errors import Interrupted
from kdrun.sweeps.lockstep.jobs import Job, lockstep_groups
from kdrun.sweeps.lockstep.scheduler import Scheduler

composition.register()


def config(*words: str) -> DistillConfig:
    with initialize_config_module("kdrun.configs", version_base="1.3"):
        return parse.distill_config(compose("distill", ["gang=true", *words]))


@pytest.mark.parametrize(
    ("words", "together"),
    [
        ((["T=1"], ["T=4"]), True),
        ((["loss=kd"], ["loss=at"]), True),
        ((["lr=0.1"], ["epochs=3"]), True),
        ((["student=cnn_tiny"], ["student=mlp30"]), True),
        ((["seed=0"], ["seed=1"]), False),
        ((["batch_size=32"], ["batch_size=64"]), False),
        ((["precision=fp32"], ["precision=bf16"]), False),
        ((["teacher.seed=0"], ["teacher.seed=1"]), False),
        ((["teacher.fold=true"], ["teacher.fold=false"]), False),
        ((["dataset.augment.flip=true"], ["dataset.augment.flip=false"]), False),
        ((["augment=randaugment"], ["augment=trivialaugment"]), False),
        ((["augment=randaugment", "T=1"], ["augment=randaugment", "T=4"]), True),
        ((["compile=true", "T=1"], ["compile=true", "T=4"]), False),
        ((["loss=ce"], ["loss=kd"]), False),
        ((["sweep.job_minutes=5", "T=1"], ["sweep.job_minutes=5", "T=4"]), False),
        ((["transfer.fraction=0.5"], ["transfer.fraction=0.6"]), False),
        ((["gang=false", "T=1"], ["gang=false", "T=4"]), False),
    ],
)
def test_the_configuration_decides(words: Any, together: bool) -> None:
    jobs = [Job(number, config(*one), []) for number, one in enumerate(words)]
    assert [len(group) for group in lockstep_groups(jobs)] == ([2] if together else [1, 1])


def test_groups_keep_the_order_of_the_jobs() -> None:
    base = config()
    jobs = [Job(n, replace(base, seed=n % 2, T=float(n + 1)), []) for n in range(5)]
    found = [sorted(job.number for job in group) for group in lockstep_groups(jobs)]
    assert found == [[0, 2, 4], [1, 3]]


def test_the_members_of_a_group_are_in_one_order_in_every_process() -> None:
    configs = [config(f"T={n}") for n in (1, 2, 4, 8)]
    orders = [
        [
            job.config.T
            for job in lockstep_groups([Job(n, one, []) for n, one in enumerate(listed)])[0]
        ]
        for listed in (configs, configs[::-1])
    ]
    assert orders[0] == orders[1]


def test_of_two_equal_jobs_the_second_comes_by_itself() -> None:
    words = (["T=1"], ["T=4"], ["T=4", "teacher.cache=off"])
    jobs = [Job(number, config(*one), []) for number, one in enumerate(words)]
    assert [len(group) for group in lockstep_groups(jobs)] == [2, 1]
    assert lockstep_groups(jobs)[1][0].number == 2


def play(steps: dict[int, list[tuple[int, int]]], fails: int | None = None) -> list[Any]:
    """Jobs that hand on at the given positions; what was done, in order."""
    scheduler, done = Scheduler(torch.device("cpu")), []

    def work(job: int) -> None:
        try:
            torch.manual_seed(job)
            for position in steps[job]:
                scheduler.yield_turn(job, position)
                if job == fails:
                    raise ValueError
                done.append((job, position, torch.rand(()).item()))
        except (ValueError, Interrupted):
            done.append((job, "ended"))

    for job in steps:
        scheduler.add(job, partial(work, job))
    scheduler.run()
    return done


def test_jobs_step_in_turn_each_with_its_own_random_numbers() -> None:
    positions = [(0, 0), (0, 1), (1, 0)]
    found = play({0: positions, 1: positions, 2: positions})
    assert [entry[0] for entry in found] == [0, 1, 2] * 3
    for job in range(3):
        torch.manual_seed(job)
        expected = [torch.rand(()).item() for _ in positions]
        assert [entry[2] for entry in found if entry[0] == job] == expected


def test_the_job_that_is_behind_goes_first() -> None:
    found = play({0: [(2, 0), (2, 1)], 1: [(0, 0), (1, 0), (2, 0), (2, 1)]})
    order = [(entry[0], entry[1]) for entry in found]
    assert order == [
        (1, (0, 0)), (1, (1, 0)), (0, (2, 0)), (1, (2, 0)), (0, (2, 1)), (1, (2, 1)),
    ]  # fmt: skip


def test_a_job_that_ends_early_stops_nobody() -> None:
    positions = [(0, 0), (0, 1)]
    found = play({0: positions, 1: positions, 2: positions}, fails=1)
    assert [entry[0] for entry in found] == [0, 1, 2, 0, 2]


def test_all_jobs_work_in_this_thread() -> None:
    scheduler, seen = Scheduler(torch.device("cpu")), set()

    def work(job: int) -> None:
        for number in range(3):
            scheduler.yield_turn(job, (0, number))
            seen.add(threading.get_ident())

    for job in range(4):
        scheduler.add(job, partial(work, job))
    scheduler.run()
    assert seen == {threading.get_ident()}


def test_when_it_is_broken_everybody_stops_at_the_next_turn() -> None:
    scheduler, stopped = Scheduler(torch.device("cpu")), []

    def work(job: int) -> None:
        try:
            for number in range(3):
                scheduler.yield_turn(job, (0, number))
                scheduler.stopped = scheduler.stopped or (job, number) == (1, 1)
        except Interrupted:
            stopped.append((job, number))

    for job in range(3):
        scheduler.add(job, partial(work, job))
    scheduler.run()
    assert stopped == [(2, 1), (0, 2), (1, 2)]


def test_an_exception_of_one_job_interrupts_the_others_where_they_stand() -> None:
    scheduler, stopped = Scheduler(torch.device("cpu")), []

    def work(job: int) -> None:
        try:
            for number in range(3):
                scheduler.yield_turn(job, (0, number))
                if (job, number) == (1, 1):
                    raise OSError("a full disk")
        except Interrupted:
            stopped.append(job)

    for job in range(3):
        scheduler.add(job, partial(work, job))
    with pytest.raises(OSError, match="a full disk"):
        scheduler.run()
    assert sorted(stopped) == [0, 2]
