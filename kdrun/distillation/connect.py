"""Connect a student to its teachers through an objective: set the taps, build the adapters.

Runs and `kdrun.Distiller` train what `connect` returns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from kdrun.distillation.networks import Member, TrainingData
from kdrun.errors import ConfigError
from kdrun.losses.base import DistillationLoss, LossContext, NetworkView
from kdrun.losses.context import TeacherEmbeddings
from kdrun.losses.objective import Objective
from kdrun.models.dry_run import dry_run
from kdrun.models.features.pairs import pair_taps
from kdrun.models.features.taps import FeatureExtractor
from kdrun.models.quantisation.quantise import quantise
from kdrun.seeds import derive
from kdrun.types import Outputs

# (number of the teacher, its extractor, its outputs for a dry batch) -> statistics of embeddings
EmbeddingSource = Callable[[int, FeatureExtractor, Outputs], TeacherEmbeddings]


@dataclass(frozen=True)
class Connected:
    """Networks that return the features an objective reads.

    member: the student that is trained and saved. student, teachers: images → `Outputs`.
    """

    member: Member
    student: FeatureExtractor
    teachers: list[FeatureExtractor]


def connect(
    objective: Objective,
    student: Member,
    teachers: Sequence[Member],
    data: TrainingData,
    batch_size: int,
    seed: int,
    embeddings: EmbeddingSource | None = None,
    quantize: str | None = None,
) -> Connected:
    """`final_student`, then `tap_networks`; builds the adapters of `objective` in place.

    quantize: quantise the final student in place; see `NetworkConfig`.
    """
    member = final_student(objective, student, teachers, data, seed)
    if quantize is not None:
        config = replace(member.config, quantize=quantize)
        quantise(member.network, quantize, member.sample(data), config.name)
        member = replace(member, config=config)
    extractors = tap_networks(objective, member, teachers, data, batch_size, seed, embeddings)
    return Connected(member, *extractors)


def final_student(
    objective: Objective, student: Member, teachers: Sequence[Member], data: TrainingData, seed: int
) -> Member:
    """The student that is trained and saved; a loss may replace the plain one.

    Raises ConfigError if such a loss has several teachers.
    """
    for loss in objective.loss_list():
        if not loss.replaces_student or not teachers:
            continue
        if len(teachers) > 1:
            raise ConfigError(
                f"loss={loss.id} keeps a part of the teacher in the student, so it takes one "
                f"teacher; there are {len(teachers)}. Name one: teacher=..."
            )
        student_view, teacher_view = (m.view(data) for m in (student, teachers[0]))
        torch.manual_seed(derive(seed, "final network", loss.id))
        final = loss.final_network(student_view, student.config, teacher_view, data.info)
        student = Member(*final, student.normalisation, example=student.example)
    return student


def tap_networks(
    objective: Objective,
    student: Member,
    teachers: Sequence[Member],
    data: TrainingData,
    batch_size: int,
    seed: int,
    embeddings: EmbeddingSource | None = None,
) -> tuple[FeatureExtractor, list[FeatureExtractor]]:
    """Wrap all networks with the taps that the objective reads, and build its adapters.

    embeddings: for losses that read statistics of the training images; None: there are none.
    Raises ConfigError for unknown taps, and for incompatible shapes or class counts.
    """
    members = (student, *teachers)
    student_paths, *teacher_paths = paths = [m.paths(data) for m in members]
    student_names: list[str] = []
    names: list[list[str]] = [student_names]
    student_view = NetworkView(student.network, student_paths)
    views = [m.view(data, p) for m, p in zip(teachers, teacher_paths, strict=True)]
    for position, its_paths in enumerate(teacher_paths):
        teacher_names: list[str] = []
        for loss in _losses_of(objective, position):
            loss.request_taps(student_view, views[position], data.info)
            loss.pairs = pair_taps(loss.taps, student_paths, its_paths)
            student_names += [pair[0] for pair in loss.pairs] + loss.student_taps
            teacher_names += [pair[1] for pair in loss.pairs]
        names.append(teacher_names)
    embedding = any(loss.reads_embedding for loss in objective.loss_list())
    extractors = [
        FeatureExtractor(
            m.network,
            list(dict.fromkeys(tap_names)),
            its_paths,
            embedding,
            (data.normalisation, m.normalisation),
            m.image_size,
            m.outputs,
        )
        for m, tap_names, its_paths in zip(members, names, paths, strict=True)
    ]
    if teachers:
        context = LossContext(
            num_classes=data.info.num_classes,
            transfer_size=len(data.train.targets),
            targets=data.train.targets,
            batch_size=batch_size,
            seed=derive(seed, "terms"),
            student=student_view,
            teacher=views[0],
            teachers=objective.ensemble.targets,
        )
        sample = student.sample(data)
        outputs = [_dry_outputs(extractor, sample) for extractor in extractors]
        statistics = _statistics(embeddings, extractors[1:], outputs[1:])
        _build_adapters(objective, outputs, views, statistics, context, seed)
    return extractors[0], extractors[1:]


def _statistics(
    source: EmbeddingSource | None,
    teachers: Sequence[FeatureExtractor],
    outputs: Sequence[Outputs],
) -> list[TeacherEmbeddings | None]:
    """Statistics of each teacher's embeddings, not measured yet; None without embeddings."""
    return [
        None if source is None or output.embedding is None else source(number, teacher, output)
        for number, (teacher, output) in enumerate(zip(teachers, outputs, strict=True))
    ]


def _losses_of(objective: Objective, position: int) -> list[DistillationLoss]:
    """The losses that learn from this teacher alone; none if soft targets are averaged."""
    within = position < objective.ensemble.targets
    return list(objective.losses_of(position).values()) if within else []


def _build_adapters(
    objective: Objective,
    outputs: Sequence[Outputs],
    views: Sequence[NetworkView],
    statistics: Sequence[TeacherEmbeddings | None],
    context: LossContext,
    seed: int,
) -> None:
    """Build the adapters of every loss; each teacher has its own random stream."""
    student, *teachers = outputs
    for position, (teacher, view) in enumerate(zip(teachers, views, strict=True)):
        if teacher.logits.shape[1] != student.logits.shape[1]:
            raise ConfigError(
                f"The teacher has {teacher.logits.shape[1]} classes and the student "
                f"{student.logits.shape[1]}: both must have those of the data set."
            )
        number = (position,) if position else ()
        torch.manual_seed(derive(seed, "adapters", *number))
        loss_seed = derive(seed, "terms", *number)
        its_context = replace(
            context,
            seed=loss_seed,
            teacher=view,
            position=position,
            embeddings=statistics[position],
        )
        for loss in _losses_of(objective, position):
            loss.build(student, teacher, its_context)
            _require_known_shapes(loss)


def _require_known_shapes(loss: DistillationLoss) -> None:
    """Raise ConfigError for lazy layers, which no optimiser could take yet."""
    lazy = [
        name
        for name, parameter in loss.named_parameters()
        if isinstance(parameter, torch.nn.parameter.UninitializedParameter)
    ]
    if lazy:
        raise ConfigError(
            f"loss.{loss.id}: {lazy[0]} of {type(loss).__name__} has no shape yet: make its layers "
            "in build(student, teacher, context), where the shapes are known, instead of lazy ones."
        )


def _dry_outputs(extractor: FeatureExtractor, sample: torch.Tensor) -> Outputs:
    with dry_run(extractor):
        outputs: Outputs = extractor(sample)
    return outputs
