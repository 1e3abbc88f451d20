"""The student of an interrupted run, from its last checkpoint."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from kdrun.config import parse
from kdrun.config.schema import DistillConfig
from kdrun.deploy.student import LoadedNetwork
from kdrun.distillation.prepare import plan_student
from kdrun.distillation.session import Session, open_data
from kdrun.distillation.student import STEM, data_entries
from kdrun.distillation.transfer import open_transfer
from kdrun.errors import CheckpointError, ConfigError
from kdrun.models.build import build_network
from kdrun.models.card import INTERRUPTED_AT, load_weights
from kdrun.runs.config import read_config
from kdrun.runs.folder import RunFolder
from kdrun.runs.reading import is_run_folder, require_intact
from kdrun.runs.result import COMPLETED, FAILED

STUDENT = "student.network."  # of a scheme's tensors in a checkpoint
MAIN_PHASE = "main"


def is_interrupted(run: Path) -> bool:
    """Whether this is the folder of a distillation that has not finished.

    Raises ConfigError for one that failed or is still running, CheckpointError for a damaged one.
    """
    if not run.is_dir() or not is_run_folder(run) or (run / f"{STEM}.json").exists():
        return False
    read = require_intact(run)
    if read.status == COMPLETED or read.values.get("command") != "distill":
        return False
    if read.status == FAILED:
        lines = str(read.values.get("error") or "no reason noted").strip().splitlines()
        raise ConfigError(
            f"{run} failed and is not exported ({lines[-1].rstrip('.')}): choose another run "
            "(kdrun ls runs)."
        )
    if not RunFolder(run).is_free():
        raise ConfigError(
            f"{run} is still running: stop it with Ctrl-C, which saves its state, or wait."
        )
    return True


def load_interrupted(run: Path, weights: str, session: Session) -> tuple[LoadedNetwork, Path, str]:
    """The network of a run's last checkpoint, the checkpoint, and which epoch it is, as text.

    weights: last | ema. The card holds the epoch too.
    Raises ConfigError or CheckpointError for a run without a usable checkpoint.
    """
    config = read_config(run, parse.distill_config)
    checkpoints = RunFolder(run).checkpoints
    saved = checkpoints.load(session.reporter.warn)
    if saved is None:
        raise ConfigError(
            f"{run} was interrupted before its student's first checkpoint: kdrun resume {run} "
            "continues it."
        )
    state = saved["state"]
    if state["phase"] != MAIN_PHASE:
        raise ConfigError(
            f"{run} was interrupted while {state['phase']} was pre-trained, before the student "
            f"learnt: kdrun resume {run} continues it."
        )
    tensors = _tensors(saved, weights, run)
    entries = {"epoch": state["epoch"], "batch": state["batch"], "step": state["step"]}
    entries["epochs"] = config.schedule.epochs
    entries["weights"] = weights
    network = _network(config, tensors, entries, session, checkpoints.last)
    return network, checkpoints.last, _where(entries)


def _tensors(saved: dict[str, Any], weights: str, run: Path) -> dict[str, Tensor]:
    """The student's tensors by the network's own names."""
    if weights == "ema":
        averaged: dict[str, Tensor] | None = saved["state"]["averaged"]
        if averaged is None:
            raise ConfigError(
                f"{run} has no averaged weights: train with schedule.ema=0.9998, or leave weights "
                "out."
            )
        return averaged
    return {
        name.removeprefix(STUDENT): tensor
        for name, tensor in saved["scheme"].items()
        if name.startswith(STUDENT)
    }


def _network(
    config: DistillConfig,
    tensors: dict[str, Tensor],
    entries: dict[str, Any],
    session: Session,
    checkpoint: Path,
) -> LoadedNetwork:
    dataset = open_data(session, config.dataset, config.val_fraction)
    plan = plan_student(config, open_transfer(config, dataset, session).dataset)
    network = build_network(plan.student.network, plan.student.built_for, "run")
    try:
        load_weights(network, tensors, str(checkpoint))
    except CheckpointError as error:
        raise CheckpointError(f"{error} It is not a checkpoint of this run's student.") from None
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    extra = {
        "objective": plan.objective,
        **data_entries(config, dataset),
        INTERRUPTED_AT: entries,
    }
    sha256 = hashlib.sha256(save(contiguous)).hexdigest()
    return LoadedNetwork(network, replace(plan.student, sha256=sha256, extra=extra))


def _where(entries: dict[str, Any]) -> str:
    """`epoch 12 of 30`, `epoch 12 of 30 and 5 batches of the next`."""
    text = f"epoch {entries['epoch']} of {entries['epochs']}"
    if entries["batch"]:
        several = "batch" if entries["batch"] == 1 else "batches"
        text += f" and {entries['batch']} {several} of the next"
    return text + (", averaged weights" if entries["weights"] == "ema" else "")
