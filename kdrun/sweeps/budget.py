"""Budgets of a sweep or a search: students that are too large or too slow are not trained.

Bytes and FLOPs follow from the architecture; latency is measured on the untrained student. Which
students fit is decided once, by the process that starts the sweep, before its first job.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kdrun.config.runtime import SweepConfig
from kdrun.config.schema import DistillConfig
from kdrun.data.dataset import Dataset
from kdrun.deploy.untrained import LatencyStore, conditions_of, untrained
from kdrun.distillation.build import BuildPlan
from kdrun.distillation.prepare import plan_student
from kdrun.distillation.session import Session, open_data, open_session
from kdrun.distillation.transfer import open_transfer
from kdrun.errors import EXIT_DONE, ConfigError, KdrunError
from kdrun.models.card import NetworkCard
from kdrun.models.measure import count_bytes
from kdrun.runs.footprint import Footprint, RunFootprint
from kdrun.ui import format

LATENCIES = "latency"  # below outputs/cache


@dataclass(frozen=True)
class Decision:
    """What a job's student costs, and why it is over the budget; empty if it fits."""

    student: str
    footprint: RunFootprint
    excess: str

    def noted(self) -> dict[str, Any]:
        """What the sweep's folder holds of a student over the budget."""
        return {
            "code": EXIT_DONE,
            "over_budget": self.excess,
            "footprint": self.footprint.to_dict(),
        }


def has_budget(config: Any) -> bool:
    """Whether a job's student is measured before it is trained."""
    return isinstance(config, DistillConfig) and config.runtime.sweep.has_budget


def decide(configs: Sequence[Any], alone: bool = False) -> dict[int, Decision]:
    """Job number → decision, for jobs with a budget; jobs whose student cannot be built have none.

    Raises ConfigError if no student fits. alone: one of several proposals, which need not fit.
    """
    chosen = {n: config for n, config in enumerate(configs) if has_budget(config)}
    if not chosen:
        return {}
    first = next(iter(chosen.values()))
    with open_session(first.runtime) as session:
        decisions = Budget(session).decide(chosen)
    if len(decisions) == len(configs) and not alone:
        require_one(list(decisions.values()), first.runtime.sweep, "sweep")
    return decisions


def require_one(decisions: Sequence[Decision], limits: SweepConfig, what: str) -> None:
    """Raise ConfigError that names the smallest student if all are over the budget."""
    if not decisions or not all(decision.excess for decision in decisions):
        return
    exceeded = {
        key: sum(_value(one.footprint.student, key) > value for one in decisions)
        for key, value in limits.limits.items()
    }
    key = max(exceeded, key=lambda name: exceeded[name])
    smallest = min(decisions, key=lambda one: _value(one.footprint.student, key))
    value = _text(key, _value(smallest.footprint.student, key))
    raise ConfigError(
        f"No student of this {what} is within the budget ({format_limits(limits)}): the smallest, "
        f"{smallest.student}, has {value}; raise sweep.{key} or choose smaller students."
    )


class Budget:
    """Measures students; each architecture once.

    open_data: the data set of a job; None opens it. stores: whether new latencies are written to
    the output root.
    """

    def __init__(
        self,
        session: Session,
        open_data: Callable[[DistillConfig], Dataset] | None = None,
        stores: bool = True,
    ) -> None:
        self.session = session
        self.open_data = open_data or self._open
        self.stores = stores
        self.plans: dict[str, tuple[BuildPlan, Dataset]] = {}
        self.bytes: dict[str, int] = {}
        self.latencies: dict[str, LatencyStore] = {}

    def decide(self, configs: dict[int, DistillConfig]) -> dict[int, Decision]:
        """Number → decision; those whose networks cannot be built are left to their jobs."""
        plans = {}
        for number, config in configs.items():
            try:
                plans[number] = self._plan(config)
            except KdrunError:
                continue
        measured = self._latencies({n: configs[n] for n in plans}, plans)
        return {
            number: self._decision(configs[number], plan, measured.get(number))
            for number, (plan, _) in plans.items()
        }

    def _plan(self, config: DistillConfig) -> tuple[BuildPlan, Dataset]:
        data = (config.dataset, config.val_fraction, config.transfer)
        key = repr((config.student, config.teachers, config.loss, config.scheme, data))
        if key not in self.plans:
            dataset = self.open_data(config)
            dataset = open_transfer(config, dataset, self.session).dataset
            self.plans[key] = plan_student(config, dataset), dataset
        return self.plans[key]

    def _open(self, config: DistillConfig) -> Dataset:
        return open_data(self.session, config.dataset, config.val_fraction)

    def _latencies(
        self, configs: dict[int, DistillConfig], plans: dict[int, tuple[BuildPlan, Dataset]]
    ) -> dict[int, list[float]]:
        """Job number → latency of the student and of each teacher, where they are measured."""
        by_conditions: dict[str, list[int]] = {}
        for number, config in configs.items():
            limits = config.runtime.sweep
            if limits.measures_latency:
                by_conditions.setdefault(str(self._conditions(limits)), []).append(number)
        found: dict[int, list[float]] = {}
        for numbers in by_conditions.values():
            cards = {n: [plans[n][0].student, *plans[n][0].teachers] for n in numbers}
            flat = [(card, plans[n][1].pixel_type) for n in numbers for card in cards[n]]
            values = iter(
                self._store(configs[numbers[0]].runtime.sweep).measure(
                    flat, self.session.reporter.say
                )
            )
            found |= {n: [next(values) for _ in cards[n]] for n in numbers}
        return found

    def _conditions(self, limits: SweepConfig) -> Any:
        return conditions_of(limits.latency_program, limits.latency_batch, self.session.threads)

    def _store(self, limits: SweepConfig) -> LatencyStore:
        conditions = self._conditions(limits)
        folder = self.session.output_root / "cache" / LATENCIES
        store = LatencyStore(folder, conditions, self.stores)
        return self.latencies.setdefault(str(conditions), store)

    def _decision(
        self, config: DistillConfig, plan: BuildPlan, latencies: list[float] | None
    ) -> Decision:
        limits = config.runtime.sweep
        cards = (plan.student, *plan.teachers)
        measured = [None] * len(cards) if latencies is None else latencies
        student, *teachers = (
            Footprint(card.params, card.flops, self._bytes(card), latency)
            for card, latency in zip(cards, measured, strict=True)
        )
        conditions = None if latencies is None else self._conditions(limits)
        return Decision(
            plan.student.name,
            RunFootprint(student, tuple(teachers), conditions),
            excess(student, limits),
        )

    def _bytes(self, card: NetworkCard) -> int:
        key = repr((card.network, card.built_for))
        if key not in self.bytes:
            self.bytes[key] = count_bytes(untrained(card))
        return self.bytes[key]


def excess(student: Footprint, limits: SweepConfig) -> str:
    """`5,100,000 FLOPs (limit 1,000,000)`: the limits that a student exceeds; empty if it fits."""
    return ", ".join(
        f"{_text(key, _value(student, key))} (limit {_text(key, limit, unit=False)})"
        for key, limit in limits.limits.items()
        if _value(student, key) > limit
    )


def format_limits(limits: SweepConfig) -> str:
    """`sweep.max_flops=1,000,000, sweep.max_latency_ms=5`."""
    return ", ".join(
        f"sweep.{key}={_text(key, value, unit=False)}" for key, value in limits.limits.items()
    )


def _value(student: Footprint, key: str) -> float:
    if key == "max_flops":
        return student.flops
    if key == "max_bytes":
        return student.bytes
    assert student.latency_ms is not None
    return student.latency_ms


def _text(key: str, value: float, unit: bool = True) -> str:
    units = {"max_flops": "FLOPs", "max_bytes": "bytes", "max_latency_ms": "ms"}
    shown = format.count(round(value))
    if key == "max_latency_ms":
        shown = f"{value:.4g}" if value < 1000 else f"{value:,.0f}"
    return f"{shown} {units[key]}" if unit else shown
