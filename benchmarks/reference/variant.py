"""The usual loop as a variant of a benchmark: the same networks, objective and images."""

import os
from dataclasses import replace

import torch
from torch import Tensor

from kdrun.benchmarking.variants import Bench, untrained_scheme
from kdrun.config.schema import DistillConfig
from kdrun.data.loaders.rendering import storage
from kdrun.data.loaders.resident import choose_resident
from kdrun.engine.optim import build_optimizer
from kdrun.engine.timing import PhaseClock
from kdrun.losses.crd import ContrastiveDistillation
from kdrun.losses.kd import SoftTargets
from kdrun.losses.objective import Objective
from kdrun.schemes.base import StudentScheme
from kdrun.types import Batch

from .crd import GatheredCrd
from .images import are_files, usual_batches
from .loop import Forward, UsualLoop, plain_forward, soft_target_objective


class UsualVariant:
    """The usual loop on the same networks and objective."""

    def __init__(self, config: DistillConfig, bench: Bench) -> None:
        session = replace(bench.session, runtime=config.runtime)
        scheme = untrained_scheme(config, bench.dataset, session)
        scheme.to(session.device, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        for teacher in scheme.frozen_teachers:
            teacher.to(memory_format=torch.contiguous_format)
        scheme.train()
        self.scheme = scheme
        self.bench = bench
        self.clock = PhaseClock(session.device)
        self.loop = UsualLoop(
            usual_forward(scheme, self.clock),
            build_optimizer(scheme.parameters(), config.schedule),
            session.device,
            self.clock,
        )
        self.clock.watch_module("student forward", scheme.student.network)
        for teacher in scheme.frozen_teachers:
            self.clock.watch_module("teacher forward", teacher.network)
        self.clock.watch_optimizer("optimiser", self.loop.optimizer, before="backward")
        self.watched_steps = 0
        train, data = bench.dataset.train, config.dataset
        stored = storage(config.augment)
        streamed = not choose_resident(train, stored, session.device, data.resident)
        from_files = streamed and are_files(train)
        self.batches = usual_batches(
            train,
            config.augment,
            bench.dataset.normalisation,
            config.schedule.batch_size,
            loader_workers(session.device, data.workers, from_files),
            from_files=from_files,
            num_classes=bench.dataset.info.num_classes,
            pinned=session.device.type == "cuda",
        )

    def block(self) -> float:
        """Load, step, count."""
        began = self.clock.now()
        for _ in range(self.bench.steps):
            self.clock.start("data")
            batch = next(self.batches)
            self.clock.stop("data")
            self.loop.step(batch)
        return (self.clock.now() - began) / self.bench.steps

    def close(self) -> None:
        """End the loader's workers."""
        self.batches.close()

    def watched_block(self) -> float:
        """The same with the phases' clock running."""
        self.clock.active = True
        seconds = self.block()
        self.clock.active = False
        self.watched_steps += self.bench.steps
        return seconds

    def phases(self) -> dict[str, float]:
        """Seconds of a step by phase, over all watched blocks."""
        return {name: spent / self.watched_steps for name, spent in self.clock.seconds.items()}


def loader_workers(device: torch.device, configured: int, from_files: bool) -> int:
    """Workers of the usual loader. Images in memory are read in this process on a CPU, whose cores
    train; a GPU leaves the cores to workers."""
    if from_files:
        return configured
    return min(8, (os.cpu_count() or 1) - 1) if device.type == "cuda" else 0


def usual_forward(scheme: StudentScheme, clock: PhaseClock) -> Forward:
    """The scheme's mathematics as the usual loop has it: written out for CE and plain soft targets
    of one teacher, and for CE and CRD; through the scheme's own objective for all else.

    clock: counts the objective as the phase `terms`.
    """
    objective: Objective = scheme.objective
    terms = objective.loss_list()
    teachers = scheme.frozen_teachers
    if len(teachers) == 1 and len(terms) == 1 and type(terms[0]) is SoftTargets:
        term = terms[0]
        ce = objective.ce
        plain = not term.standardise and ce.label_smoothing == 0 and ce.kind == "ce"
        if plain and scheme.student.renormalise is None and teachers[0].renormalise is None:
            weight = objective.weights[term.id]
            loss = soft_target_objective(term.temperature, weight, objective.ce_weight)
            timed = clock.timed("terms", loss)
            return plain_forward(scheme.student.network, teachers[0].network, timed)
    if len(teachers) == 1 and len(terms) == 1 and type(terms[0]) is ContrastiveDistillation:
        return _crd_forward(scheme, terms[0], clock)
    clock.watch_module("terms", objective)

    def forward(batch: Batch) -> tuple[Tensor, Tensor]:
        output = scheme(batch)
        return output.loss, output.logits

    return forward


def _crd_forward(
    scheme: StudentScheme, term: ContrastiveDistillation, clock: PhaseClock
) -> Forward:
    """CE and CRD with all negatives gathered."""
    objective, gathered = scheme.objective, GatheredCrd(term)
    weight = objective.weights[term.id]

    def forward(batch: Batch) -> tuple[Tensor, Tensor]:
        student, (teacher,) = scheme.forward_networks(batch)
        clock.start("terms")
        hard = objective.ce(student, teacher, batch)
        loss = objective.ce_weight * hard + weight * gathered(student, teacher, batch)
        clock.stop("terms")
        return loss, student.logits

    return forward
