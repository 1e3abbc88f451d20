"""Figures of finished runs: evaluate their networks on the test split again and draw."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from kdrun.config import parse
from kdrun.config.schema import DatasetConfig, DistillConfig, named_teachers
from kdrun.data.dataset import Dataset
from kdrun.distillation.loaded_teacher import load_teacher
from kdrun.distillation.networks import Member, renormalised, seen_by, teacher_member
from kdrun.distillation.session import Session, eval_loader, open_data, open_session
from kdrun.engine.metrics import collect_logits
from kdrun.errors import KdrunError
from kdrun.evaluation.augmented import augmented_figure
from kdrun.losses.class_maps import class_maps, pooled_map_tap
from kdrun.losses.embeddings import student_classifier
from kdrun.models.build import build_network
from kdrun.models.card import load_weights
from kdrun.models.features.taps import FeatureExtractor
from kdrun.report.figures import answers, errors, features
from kdrun.report.figures.drawing import ALONE, DISTILLED, TEACHER, Evidence
from kdrun.report.figures.store import StoredFigure, write_figures
from kdrun.report.records import Run
from kdrun.runs.config import read_config
from kdrun.teachers.formats import read_any
from kdrun.types import Outputs
from kdrun.ui.reporter import Reporter

# Number of test images for similarity and attention, balanced by class.
SAMPLE = 120
BATCH = 128


def draw_figures(runs: Sequence[Run]) -> None:
    """Draw the figures of each run into its folder; warn about figures that cannot be drawn."""
    for run in runs:
        try:
            _draw_run(run)
        except (KdrunError, OSError) as error:
            Reporter("auto").warn(f"{run.folder} has no figures: {error}")


def _draw_run(run: Run) -> None:
    config = read_config(run.folder, parse.distill_config)
    runtime = replace(config.runtime, device="auto", compile=False, ui="auto")
    with open_session(runtime) as session:
        session.reporter.say(f"  drawing figures of {run.folder}")
        figures, missing = figures_of(run, config, session)
        write_figures(run.folder, figures)
        for what in missing:
            session.reporter.warn(what)


def figures_of(
    run: Run, config: DistillConfig, session: Session
) -> tuple[list[StoredFigure], list[str]]:
    """(figures of a run, missing figures with the reason).

    Raises KdrunError if its student or its data can no longer be read.
    """
    dataset = open_data(session, config.dataset, config.val_fraction)
    networks, missing = _networks(run, config, dataset)
    evidence = _evidence(run, config, dataset, networks, session)
    drawn = [
        answers.soft_labels(evidence),
        answers.disagreements(evidence),
        errors.class_change(evidence),
        errors.confusion(evidence),
        errors.reliability(evidence),
        features.similarity(evidence),
        features.attention_maps(evidence),
        features.class_activation_maps(evidence),
        augmented_figure(config, dataset),
    ]
    return [figure for figure in drawn if figure is not None], missing


def _networks(
    run: Run, config: DistillConfig, dataset: Dataset
) -> tuple[dict[str, Member], list[str]]:
    """Who → network in the figures' order: best teacher, baseline, then the run's networks."""
    members: dict[str, Member] = {}
    missing = []
    teachers = run.result.teachers
    best = max(range(len(teachers)), key=lambda n: teachers[n].test.top1 or 0.0, default=0)
    sources: list[tuple[str, str | None]] = [(ALONE, run.result.alone.run)]
    if teachers:
        sources.insert(0, (TEACHER, teachers[best].checkpoint))
    for who, path in sources:
        if path is None:
            continue
        try:
            members[who] = _member(Path(path), config, dataset, who, best)
        except KdrunError as error:
            missing.append(f"The {who} is left out of the figures: {error}")
    members[ALONE if config.labels_only else DISTILLED] = _member(
        run.folder, config, dataset, "student"
    )
    return members, missing


def _member(
    path: Path, config: DistillConfig, dataset: Dataset, who: str, place: int = 0
) -> Member:
    """A network from a run folder, a store entry or a teacher's file. place: of the teacher."""
    teacher = config.teachers[place] if who == TEACHER and place < len(config.teachers) else None
    if teacher is not None and teacher.checkpoint is not None:
        where, _ = named_teachers(config.teachers)[place]
        found = load_teacher(teacher, dataset, where)
        return teacher_member(found.network, found.config, found.card)
    loaded = read_any(path, who)
    own = teacher.network if teacher is not None else config.student
    chosen = loaded.card.network if loaded.card else own
    size = (teacher and teacher.image_size) or (loaded.card and loaded.card.resized) or None
    network = build_network(chosen, seen_by(dataset, size), who)
    load_weights(network, loaded.weights, str(loaded.path))
    normalisation = loaded.card.normalisation if loaded.card else dataset.normalisation
    return Member(network, chosen, normalisation, size)


def _evidence(
    run: Run,
    config: DistillConfig,
    dataset: Dataset,
    networks: dict[str, Member],
    session: Session,
) -> Evidence:
    sample = spread_sample(dataset.test.targets, SAMPLE)
    split = _TestSplit(dataset, config.dataset, session, sample)
    logits, features, scores = {}, {}, {}
    for who, member in networks.items():
        session.place(member.network)
        logits[who] = split.logits(member)
        features[who] = split.features(member)
        maps = split.class_maps(member)
        if maps is not None:
            scores[who] = maps
    temperature = run.result.T
    return Evidence(
        classes=dataset.classes,
        targets=dataset.test.targets,
        logits=logits,
        sample=sample,
        features=features,
        shown=lambda index: _shown(dataset, index),
        temperature=temperature if isinstance(temperature, float) and temperature > 0 else None,
        student=list(networks)[-1],
        class_maps=scores,
    )


@dataclass(frozen=True)
class _TestSplit:
    """Runs networks, which are on the device, on the test images. sample: positions `[S]`."""

    dataset: Dataset
    data: DatasetConfig
    session: Session
    sample: Tensor

    def logits(self, member: Member) -> Tensor:
        """`[N, C]`, of all test images."""
        normalisation = self.dataset.normalisation
        model = self.session.place(
            renormalised(
                member.network,
                normalisation,
                member.normalisation,
                member.image_size,
                member.outputs,
            )
        )
        batches = eval_loader(self.session, self.dataset.test, normalisation, self.data, BATCH)
        return collect_logits(model, batches, self.session.device, "fp32")[0]

    def features(self, member: Member) -> dict[str, Tensor]:
        """tap → `[S, ...]` of the stages, in order; the embedding if there are no stages."""
        paths = member.paths(self.dataset)
        stages = [name for name in paths if name.startswith("stage") and name[5:].isdigit()]
        names = sorted(stages, key=lambda name: int(name[5:]))
        names = names or [name for name in paths if name == "embedding"]
        if not names:
            return {}
        outputs = self._outputs(member, names, embedding=False)
        return {name: torch.cat([each.features[name].cpu() for each in outputs]) for name in names}

    @torch.no_grad()
    def class_maps(self, member: Member) -> Tensor | None:
        """`[S, H, W]`: the scores of each image's class at each place of the last feature map.

        None for a network that does not end in an average of a map and a linear classifier.
        """
        member.network.cpu()
        view = member.view(self.dataset)
        if "embedding" not in view.paths:
            return None
        try:
            tap = pooled_map_tap("class maps", "network", view, self.dataset.info)
            self.session.place(member.network)
            outputs = self._outputs(member, [tap], embedding=True)
            classifier = student_classifier("class maps", view, outputs[0])
        except KdrunError:
            self.session.place(member.network)
            return None
        scores = torch.cat([class_maps(classifier, each.features[tap]).cpu() for each in outputs])
        return scores[torch.arange(len(self.sample)), self.dataset.test.targets[self.sample]]

    @torch.no_grad()
    def _outputs(self, member: Member, names: list[str], embedding: bool) -> list[Outputs]:
        """The network's outputs with features for the sampled images, by batch."""
        extractor = FeatureExtractor(
            member.network,
            names,
            member.paths(self.dataset),
            embedding,
            normalisation=(self.dataset.normalisation, member.normalisation),
            image_size=member.image_size,
            outputs=member.outputs,
        )
        member.network.eval()
        images = self.dataset.test.select(self.sample)
        batches = eval_loader(self.session, images, self.dataset.normalisation, self.data, BATCH)
        try:
            return [extractor(batch.images) for batch in batches]
        finally:
            extractor.close()


def spread_sample(targets: Tensor, most: int) -> Tensor:
    """Positions `[S]` of up to `most` images, sorted and balanced over the classes."""
    places = [(targets == label).nonzero().flatten() for label in targets.unique().tolist()]
    share = max(1, most // len(places))
    return torch.cat([own[:share] for own in places])[:most].sort().values


def _shown(dataset: Dataset, index: Tensor) -> Tensor:
    """Test images `[B, C, H, W]` for display, in 0..1."""
    images = dataset.test.gather(index)
    if images.dtype == torch.uint8:
        return images.float() / 255
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return (images - low) / (high - low).clamp(min=1e-12)
