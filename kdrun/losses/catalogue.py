"""Generate docs/losses.md from the loss classes and their YAML files."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from kdrun.config import build
from kdrun.config.schema import SHARED_LOSS_SETTINGS
from kdrun.config.shipped import shipped_configs
from kdrun.losses.base import DistillationLoss

FOLDER = shipped_configs() / "loss"
RESERVED = {"_target_", "weight", *SHARED_LOSS_SETTINGS}

PREFACE = """\
# Losses

This file is generated from the classes in `kdrun/losses` and the files in `configs/loss`.

`loss=kd` selects one loss, `'loss=[kd,crd]'` several. The objective is `ce · CE + Σ weight · loss`.
Every number in it can be set (`loss.crd.weight=0.8`, `ce=1`), and a run prints it when it starts.
Each loss is logged unweighted (`train/crd`) and weighted (`train/crd_weighted`).

- `alpha` is the weight of the *soft* loss; CE then has weight `1 - alpha`. With losses that are not
  soft, CE has weight 1, or the weight of the method's published recipe. `ce` overrides both.
- `T` sets the temperature of every loss that has one.
- `loss.ID.warmup_epochs=20` increases a weight linearly to its full value in epoch 20.
  `loss.ID.decay_epochs=100` decreases it to zero over 100 epochs. `loss.ID.decay_after=150` keeps
  it for 150 epochs and then decreases it by a cosine, to zero at the end of training.
- `loss.ID.weight=auto` measures the weight before the first step, so that the loss sends a gradient
  of a stated size into the student. See [loss weights](loss_weights.md).
- `taps` name the features a loss reads. `stages` is every stage of both networks, paired from the
  last one backwards. Other values: `last_stage`, `stage2`, any module path, or
  `[student's, teacher's]`. `_pre` is the tensor before a stage's last activation.
- `loss.kd.regions=[1,2,4]`, and the same for `dkd` and `nkd`, adds the logits of 2×2 and 4×4
  regions (SDD: Wei et al. 2024, CVPR, arXiv 2403.13512): the map before the global average is
  averaged to each grid and classified at each place. The loss is the mean over all regions; those
  count twice that disagree with the whole image on whether the teacher is right. It needs networks
  that end in an average and a linear classifier, and labels.
- `schedule.optimizer=dot` (Zhao et al. 2023, ICCV, arXiv 2307.08436) trains any objective with SGD
  and two momentum buffers: `momentum - dot_delta` for CE, `momentum + dot_delta` for all other
  losses (0.075 as published for CIFAR). It needs a second backward pass per step.
- `schedule.optimizer=deepkd` (Huang et al. 2025, arXiv 2505.15133) has three buffers: for CE, for
  the target class of `kd` and `dkd`, and for everything else. `schedule.deepkd_deltas` is added to
  the momentum: [0.075, -0.075, 0.075] as published with `dkd`; with `kd` the last one is 0.025. It
  needs `loss=kd` or `loss=dkd`, and two more backward passes per step.
- `loss.ID.adapter=orthogonal` (Miles et al. 2024, CVPR, arXiv 2403.06213) replaces the projection
  of `fitnet`, `itrd` and `srd` by one that keeps distances and angles between student features.

Notation: B batch size, C classes, D embedding width, H×W spatial size, z logits, p probabilities,
T temperature, index s student, index t teacher. All losses are computed in float32, outside
autocast.
"""


@dataclass(frozen=True)
class Proof:
    """Evidence for the correctness of one loss.

    against: the independent formulation its value and gradient are compared with.
    skipped: common check → why it does not apply; the loss passes all others.
    """

    against: str
    skipped: Mapping[str, str]


@dataclass(frozen=True)
class Entry:
    """One loss: its YAML file, its node in that file, and an instance."""

    path: Path
    node: Mapping[str, Any]
    loss: DistillationLoss

    @property
    def cls(self) -> type[DistillationLoss]:
        """The loss's class."""
        return type(self.loss)

    @property
    def summary(self) -> str:
        """The comment in the first line of the YAML file."""
        return self.path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")

    @property
    def family(self) -> str:
        """The section of the reference, by what the loss reads."""
        if "taps" in self.node or self.loss.student_taps:
            return "Feature maps"
        return "Embeddings" if self.cls.reads_embedding else "Labels and logits"


def entries() -> dict[str, Entry]:
    """All built-in losses by id, alphabetically."""
    losses = {}
    for path in sorted(FOLDER.rglob("*.yaml"), key=lambda path: (path.stem, str(path))):
        ((name, node),) = yaml.safe_load(path.read_text(encoding="utf-8")).items()
        kwargs = {key: value for key, value in node.items() if key not in RESERVED}
        loss = build.call(node["_target_"], kwargs, f"loss.{name}")
        losses[str(name)] = Entry(path, node, loss)
    return losses


def losses_markdown(proofs: Mapping[str, Proof], checks: Mapping[str, str]) -> str:
    """The complete reference as Markdown.

    proofs: evidence by loss. checks: common check → its description, in column order.
    """
    known = entries()
    families: dict[str, list[str]] = {}
    for name, entry in known.items():
        families.setdefault(entry.family, []).append(name)
    order = sorted(families, key=["Labels and logits", "Feature maps", "Embeddings"].index)
    parts = [PREFACE, _overview(known, families, order)]
    for family in order:
        parts.append(f"## {family}\n")
        parts += [_method(name, known[name], proofs[name]) for name in families[family]]
    parts.append(_proof_table(known, proofs, checks))
    return "\n".join(parts)


def label_pairs_markdown() -> str:
    """Table of what mixed images (mixup, CutMix) mean to each loss, as Markdown."""
    rows: dict[str, list[str]] = {}
    for name, entry in entries().items():
        rows.setdefault(_label_pairs(entry), []).append(f"`{name}`")
    lines = ["| losses | with a mixed image |", "|---|---|"]
    return "\n".join(
        [*lines, *(f"| {', '.join(names)} | {text} |" for text, names in rows.items())]
    )


def _label_pairs(entry: Entry) -> str:
    refusal = entry.loss.mixing_refusal()
    if refusal is not None:
        return f"refused: the loss {refusal}"
    unchanged = "unchanged: reads no label"
    if entry.loss.reads_labels:
        return entry.cls.label_pairs
    if entry.cls.label_pairs:
        return f"{unchanged}; with settings that read one, {entry.cls.label_pairs}"
    return unchanged


def _overview(
    known: Mapping[str, Entry], families: Mapping[str, list[str]], order: list[str]
) -> str:
    rows = ["| id | name | reads | weight | CE |", "|---|---|---|---|---|"]
    for family in order:
        for name in families[family]:
            entry = known[name]
            weight = f"{entry.node.get('weight', 1.0):g}" if name != "ce" else "-"
            rows.append(
                f"| [`{name}`](#{name}) | {entry.cls.full_name} | {_reads(entry)} | {weight} | "
                f"{_ce(entry)} |"
            )
    return "## Overview\n\n" + "\n".join(rows) + "\n"


def _ce(entry: Entry) -> str:
    """The weight of CE when this is the only other loss."""
    if entry.cls.soft:
        return f"{1.0 - entry.node['weight']:g}"
    return f"{entry.cls.ce_weight:g}"


def _reads(entry: Entry) -> str:
    taps = [f"`{_tap(tap)}`" for tap in entry.loss.taps]
    taps += [f"the student's `{tap}`" for tap in entry.loss.student_taps]
    reads = taps or ["embedding" if entry.cls.reads_embedding else "logits"]
    if entry.cls.reads_tokens:
        reads.append("or a distillation token's logits")
    if taps and entry.cls.reads_embedding:
        reads.append("embedding")
    if entry.cls.reads_strong_view:
        reads.append("a strong view")
    return ", ".join(reads)


def _tap(tap: Any) -> str:
    return tap if isinstance(tap, str) else "[" + ", ".join(tap) + "]"


def _method(name: str, entry: Entry, proof: Proof) -> str:
    cls = entry.cls
    doc = inspect.cleandoc(cls.__doc__ or "")
    weight = "no settings" if name == "ce" else f"weight {entry.node['weight']:g}"
    if "warmup_epochs" in entry.node:
        weight += f", full in epoch {entry.node['warmup_epochs']}"
    facts = [
        f"- **Formula:** {cls.formula}",
        f"- **Source:** {cls.source}",
        f"- **Reads:** {_reads(entry)}",
        f"- **Default:** {weight}; CE weighs {_ce(entry)}",
        *(f"- **Variant `{key}`:** {text}" for key, text in cls.variants.items()),
        f"- **Value and gradient tested against:** {proof.against}",
    ]
    text = [f"### {name}\n", f"**{cls.full_name}.** {entry.summary}\n", "\n".join(facts), ""]
    text += ["```text", doc, "```", ""]
    if set(entry.node) - RESERVED:
        text += ["```yaml", *entry.path.read_text(encoding="utf-8").splitlines()[1:], "```", ""]
    return "\n".join(text)


def _proof_table(
    known: Mapping[str, Entry], proofs: Mapping[str, Proof], checks: Mapping[str, str]
) -> str:
    """Table of losses and checks: passed, or the number of the note on why it does not apply."""
    notes: dict[str, int] = {}
    rows = ["| | " + " | ".join(checks) + " |", "|---" * (len(checks) + 1) + "|"]
    for name in known:
        cells = []
        for check in checks:
            reason = proofs[name].skipped.get(check)
            number = notes.setdefault(reason, len(notes) + 1) if reason else 0
            cells.append(f"[{number}]" if reason else "✓")
        rows.append(f"| `{name}` | " + " | ".join(cells) + " |")
    legend = [f"- `{check}`: {shown}" for check, shown in checks.items()]
    reasons = [f"- [{number}] {reason}" for reason, number in notes.items()]
    return "\n".join(
        [
            "## Common checks\n",
            "Each loss has its own test: value and gradient against an independent formulation on "
            "several\nshapes, frozen numbers, variants, errors. In addition, every loss passes the "
            "checks below. A\nnumber refers to the reason why a check does not apply.\n",
            *rows,
            "",
            *legend,
            "",
            *reasons,
            "",
        ]
    )
