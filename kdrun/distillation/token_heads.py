"""Distillation tokens: which losses train their heads, and the accuracy of each head."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kdrun.config.schema import DistillConfig, NetworkConfig
from kdrun.data.dataset import Dataset
from kdrun.distillation.networks import Member, renormalised
from kdrun.distillation.session import Session, eval_loader
from kdrun.engine.metrics import collect_logits, measure
from kdrun.errors import ConfigError
from kdrun.losses.objective import Objective
from kdrun.models.features.taps import distillation_heads
from kdrun.models.measure import count_parameters
from kdrun.models.readout import READOUTS, ManyHeads, read_out
from kdrun.types import Batch

TOKENS = "distillation_tokens"


def without_tokens(config: NetworkConfig) -> NetworkConfig:
    """The same network without distillation tokens: trainable on labels only."""
    if not config.kwargs.get(TOKENS):
        return config
    kwargs = {**config.kwargs, TOKENS: 0}
    return replace(config, kwargs=kwargs | ({"inference": "both"} if "inference" in kwargs else {}))


def without_tokens_argv(config: NetworkConfig) -> list[str]:
    """Overrides that turn a command's student into that of `without_tokens`."""
    plain = without_tokens(config).kwargs
    changed = [key for key, value in plain.items() if value != config.kwargs[key]]
    return [f"student.{key}={plain[key]}" for key in changed]


def require_taught_heads(objective: Objective, student: nn.Module) -> None:
    """Raise ConfigError for distillation tokens whose heads no loss trains."""
    if distillation_heads(student) and not _losses_on_tokens(objective):
        raise _untaught("student", student, "take a loss that does, e.g. loss=deit_hard")


def _losses_on_tokens(objective: Objective) -> list[str]:
    """The losses that train the heads of the distillation tokens."""
    return [name for name, w in objective.weighted.items() if w.loss.reads_tokens and w.weight]


def token_notes(objective: Objective, student: nn.Module, alone: bool) -> list[str]:
    """Notes for the header: which loss trains which head, and which heads are used at inference."""
    if not (isinstance(student, ManyHeads) and student.distillation_heads):
        return []
    count = len(student.distillation_heads)
    where = "the head of the distillation token"
    if count > 1:
        where = f"the heads of the {count} distillation tokens, teacher i on that of token i"
    losses = " and ".join(_losses_on_tokens(objective))
    notes = [
        f"{losses} acts on {where}; all else on the class head; "
        f"the student is measured by student.inference={student.inference}"
    ]
    if alone:
        notes.append("the student alone has no distillation tokens: no label would train them")
    return notes


def require_no_heads(teacher: nn.Module) -> None:
    """Raise ConfigError for distillation tokens of a teacher to be trained on labels."""
    if distillation_heads(teacher):
        raise _untaught("teacher", teacher, "name trained weights (teacher.checkpoint=...)")


def _untaught(where: str, network: nn.Module, instead: str) -> ConfigError:
    count = len(distillation_heads(network))
    return ConfigError(
        f"{where}.{TOKENS}={count}: no loss would train what these tokens say; {instead}, or set "
        f"{where}.{TOKENS}=0."
    )


def token_head_metrics(
    network: nn.Module,
    prepared: Callable[[nn.Module], nn.Module],
    batches: Iterable[Batch],
    device: torch.device,
    precision: str,
) -> dict[str, Any]:
    """Metrics per head for `result.json`, from one pass over a split.

    prepared: puts what the loader's images need before a network (see `renormalised`).
    `inference`: the readout it answers with. `heads`: for every readout (`class`, `distillation`,
    `both`; `class` alone without distillation tokens) `top1_error` and `top5_error` in percent,
    the `params` that take part in it, and all metrics. Nothing for networks with one answer.
    """
    if not isinstance(network, ManyHeads):
        return {}
    model = prepared(_AllHeads(network)).to(device)
    logits, targets = collect_logits(model, batches, device, precision)
    heads = logits.unbind(1)
    readouts = READOUTS if len(heads) > 1 else READOUTS[:1]
    by_readout = {}
    for readout in readouts:
        metrics = measure(read_out(heads, readout, network.fusion), targets).as_dict()
        by_readout[readout] = {
            "top1_error": round(100.0 - metrics["top1"], 6),
            "top5_error": round(100.0 - metrics["top5"], 6),
            "params": _parameters(network, readout),
            **metrics,
        }
    return {"inference": network.inference if len(heads) > 1 else readouts[0], "heads": by_readout}


def student_heads(
    student: Member, config: DistillConfig, dataset: Dataset, session: Session
) -> dict[str, Any]:
    """`token_head_metrics` of a trained student on the test split."""
    schedule = config.schedule
    batches = eval_loader(
        session, dataset.test, dataset.normalisation, config.dataset, schedule.eval_batch_size
    )
    prepared = partial(renormalised, source=dataset.normalisation, own=student.normalisation)
    return token_head_metrics(
        student.network, prepared, batches, session.device, schedule.precision
    )


class _AllHeads(nn.Module):
    """Images → logits `[B, heads, C]` of a network, the class head first."""

    def __init__(self, network: ManyHeads) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack(list(self.network.all_heads(images)), dim=1)


def _parameters(network: ManyHeads, readout: str) -> int:
    """All but those of the heads that do not answer."""
    silent = {"class": network.distillation_heads, "distillation": [network.class_head]}
    unused = [network.get_submodule(path) for path in silent.get(readout, [])]
    return count_parameters(network) - sum(count_parameters(head) for head in unused)
