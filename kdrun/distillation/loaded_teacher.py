"""A teacher from a file: its network, what input format and class outputs.

A network card next to the weights defines all of them. Without a card, the settings do
(`teacher.mean`, `teacher.channels`, `teacher.classes`, ...); unset ones default to the data set's
values, and the notes list what was assumed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from kdrun.config.readers import CHANNELS
from kdrun.config.schema import NetworkConfig, TeacherConfig, TeacherInput
from kdrun.config.trust import is_shipped
from kdrun.data.dataset import Dataset
from kdrun.data.decoding.rules import PixelRules
from kdrun.distillation.networks import make_card, own_normalisation, seen_by
from kdrun.errors import CheckpointError, ConfigError
from kdrun.files import sha256_of
from kdrun.models.build import build_with_outputs
from kdrun.models.card import NetworkCard
from kdrun.models.pretrained import IMAGENET_CLASSES, imagenet_names, pretrained_outputs
from kdrun.seeds import derive
from kdrun.teachers.accuracy import drawn_test_notes
from kdrun.teachers.constants import (
    channels_of,
    constants_of,
    known_constants,
    stated_constants,
    transform_note,
)
from kdrun.teachers.formats import LoadedWeights, find_card, read_any
from kdrun.teachers.outputs import Outputs, chosen_outputs, format_mapping, shown
from kdrun.types import InputInfo, Normalisation
from kdrun.weights.load import WeightsChoice

PRETRAINED = "pretrained"


@dataclass(frozen=True)
class LoadedTeacher:
    """A network with its weights, in training mode on the CPU, and its card.

    has_card: the card was read from a file; otherwise it is built from the settings.
    guesses_order: the class order is unknown; the data set's order is assumed.
    new_head: the classifier is untrained; the weights have none that fits.
    notes: what was read or assumed, for the run header.
    """

    network: nn.Module
    config: NetworkConfig
    card: NetworkCard
    path: Path
    has_card: bool
    guesses_order: bool
    new_head: bool = False
    notes: tuple[str, ...] = ()


def load_teacher(config: TeacherConfig, dataset: Dataset, where: str = "teacher") -> LoadedTeacher:
    """The teacher of `teacher.checkpoint`. where: its config key, e.g. `teacher2`.

    Raises CheckpointError for damaged or incompatible files, ConfigError for incompatible
    settings.
    """
    assert config.checkpoint is not None
    if config.checkpoint == PRETRAINED:
        return _pretrained(config, dataset, where)
    loaded = read_any(Path(config.checkpoint))
    if loaded.card is not None:
        return _with_card(config, loaded, loaded.card, dataset, where)
    return _bare(config, loaded, dataset, where)


def network_name(config: TeacherConfig) -> str:
    """The teacher's architecture: from its checkpoint's card, else from the config."""
    if config.checkpoint in (None, PRETRAINED):
        return config.network.name
    card = find_card(Path(str(config.checkpoint)))
    return config.network.name if card is None else card.name


def _with_card(
    config: TeacherConfig,
    loaded: LoadedWeights,
    card: NetworkCard,
    dataset: Dataset,
    where: str,
) -> LoadedTeacher:
    """Load a checkpoint with a card. Settings may only select from the card's classes."""
    _refuse_contradictions(config.input, card, loaded.path, where)
    names = card.classes
    same_count = config.input.classes is None and len(names) == len(dataset.classes)
    if same_count and set(names) != set(dataset.classes):
        raise CheckpointError(
            f"{loaded.path} was trained on {len(names)} classes ({', '.join(names[:3])}, ...), but "
            f"{dataset.name} has {len(dataset.classes)} ({', '.join(dataset.classes[:3])}, ...). "
            f"If only the names differ, list the class of each output: "
            f"'{where}.classes=[...]'."
        )
    channels = channels_of(TeacherInput(channels=card.info.in_channels), _channels(dataset), where)
    card_outputs = Outputs(len(names), names, where, f"its card has {', '.join(names[:3])}, ...")
    selection = TeacherInput(classes=config.input.classes)
    chosen = chosen_outputs(selection, dataset.classes, card_outputs)
    outputs = card.outputs if chosen is None else tuple(_compose(card.outputs, chosen))
    size = config.image_size or card.resized
    unlike = _unlike_its_training(card, dataset, size, where) + drawn_test_notes(card, dataset)
    info = seen_by(dataset, size, channels)
    count = card.num_outputs or len(names)
    network, _ = _build(card.network, replace(info, num_classes=count), config.seed)
    read = loaded.load_into(network, card.network, info, _choice(config, where))
    if size is not None:
        card = replace(card, info=replace(card.info, image_size=size), resize=True)
    notes = [*([card.edited] if card.edited else []), *read, *unlike]
    if chosen is not None:
        card = replace(
            card,
            classes=dataset.classes,
            info=replace(card.info, num_classes=len(dataset.classes)),
            outputs=outputs,
            num_outputs=count,
        )
        mapping = format_mapping(chosen, dataset.classes, names)
        notes.append(f"outputs matched by the class names on its card: {mapping}")
    notes += _conversion_notes(_channels(dataset), channels, size)
    described = (f"{where} {card.name}: {'; '.join(notes)}",) if notes else ()
    return LoadedTeacher(network, card.network, card, loaded.path, True, False, notes=described)


def _unlike_its_training(
    card: NetworkCard, dataset: Dataset, size: tuple[int, int] | None, where: str
) -> list[str]:
    """How the images differ from those the card describes, with the setting that makes them equal.

    size: what the images are resized to, as the user or the card asks; None: they are not.
    """
    notes = []
    (height, width), seen = card.info.image_size, dataset.info.image_size
    if size is None and (height, width) != seen:
        notes.append(
            f"trained on {width}×{height} images, and these are {seen[1]}×{seen[0]}: "
            f"'{where}.image_size=[{height},{width}]' resizes them"
        )
    rules, here = PixelRules.of_card(card.extra), dataset.rules
    if here is None:
        return notes
    if rules.background != here.background:
        notes.append(f"trained with 'dataset.background={list(rules.background)}'")
    for theirs, ours in ((rules.whole, here.whole), (rules.real, here.real)):
        if theirs is not None and ours is not None and theirs != ours:
            low, high = (f"{limit:g}" for limit in theirs)
            notes.append(f"trained with 'dataset.value_range=[{low},{high}]'")
    return notes


def _bare(
    config: TeacherConfig, loaded: LoadedWeights, dataset: Dataset, where: str
) -> LoadedTeacher:
    """Load weights without a card; the settings describe them."""
    channels = channels_of(config.input, _channels(dataset), where)
    info = seen_by(dataset, config.image_size, channels)
    network, count = _build(config.network, info, config.seed)
    choice = _choice(config, where)
    held = _outputs_held(loaded.shapes_for(network, choice), network, count)
    if held is not None and held != count:
        network, count = _build(config.network, replace(info, num_classes=held), config.seed)
    shapes = loaded.shapes_for(network, choice)
    _check_channels(loaded.path, shapes, network, channels, _channels(dataset), where)
    stated = _stated_order(config.input, loaded, count, dataset.classes, where)
    names = _known_names(config.input, count) or stated
    outputs = Outputs(count, names, where)
    if count != len(dataset.classes):
        # raises a clearer error than the shape mismatch below
        chosen_outputs(config.input, dataset.classes, outputs)
    read = loaded.load_into(network, config.network, replace(info, num_classes=count), choice)
    constants = known_constants(loaded, config.network, network)
    teacher = _described(config, network, loaded.path, dataset, outputs, channels, constants)
    read += _order_notes(config.input, stated, dataset.classes, where)
    read += _size_notes(config, loaded, dataset, where)
    described = (f"{where} weights: {'; '.join(read)}",) if read else ()
    return replace(teacher, notes=(*described, *teacher.notes))


def _stated_order(
    given: TeacherInput,
    loaded: LoadedWeights,
    count: int,
    classes: Sequence[str],
    where: str,
) -> tuple[str, ...] | None:
    """The names of all outputs that the file states, preferably with those that are looked for.

    Raises CheckpointError if it states two orders of them.
    """
    orders = {
        place: order for place, order in loaded.stated.class_orders.items() if len(order) == count
    }
    wanted = {str(name) for name in given.classes or classes}
    found = {place: order for place, order in orders.items() if wanted <= set(order)}
    if len(found) > 1 and given.class_order is None:
        (first, one), (second, other) = list(found.items())[:2]
        raise CheckpointError(
            f"{loaded.path} states two orders of its outputs, {first} ({shown(one)}) and {second} "
            f"({shown(other)}): '{where}.class_order=[...]' or a file of names gives the right one."
        )
    return next(iter([*found.values(), *orders.values()]), None)


def _order_notes(
    given: TeacherInput, stated: tuple[str, ...] | None, classes: Sequence[str], where: str
) -> list[str]:
    """What the class names in the file are used for, unless the settings order the outputs."""
    if stated is None or given.classes is not None or given.class_order is not None:
        return []
    if set(stated) == set(classes):
        return ["the outputs are in the order of the class names in the file"]
    if all(re.fullmatch(r"(label_?)?\d+", name, re.IGNORECASE) for name in stated):
        return []
    return [
        f"the file names other classes ({', '.join(stated[:3])}, ...) than the data set "
        f"({', '.join(classes[:3])}, ...): if these are the same in another order, "
        f"'{where}.classes=[...]' lists the output of each class"
    ]


def _size_notes(
    config: TeacherConfig, loaded: LoadedWeights, dataset: Dataset, where: str
) -> list[str]:
    """A note if the file states only other image sizes than the teacher gets."""
    sizes, seen = loaded.stated.sizes, config.image_size or dataset.info.image_size
    if not sizes or seen in sizes.values():
        return []
    place, (height, width) = next(iter(sizes.items()))
    return [
        f"the file states images of {width}×{height} ({place}), and these are "
        f"{seen[1]}×{seen[0]}: '{where}.image_size=[{height},{width}]' resizes them"
    ]


def _choice(config: TeacherConfig, where: str) -> WeightsChoice:
    return WeightsChoice(where, config.reading.key, config.reading.rename)


def _pretrained(config: TeacherConfig, dataset: Dataset, where: str) -> LoadedTeacher:
    """Use the network's pretrained weights unchanged (`teacher.checkpoint=pretrained`)."""
    target, kwargs = config.network.target, config.network.kwargs
    if not kwargs.get("pretrained") and is_shipped(target):
        raise CheckpointError(
            "teacher.checkpoint=pretrained needs a network with pretrained weights, e.g. "
            "teacher=torchvision teacher.architecture=resnet50 teacher.pretrained=true."
        )
    channels = channels_of(config.input, _channels(dataset), where)
    info = seen_by(dataset, config.image_size, channels)
    held = pretrained_outputs(config.network)
    selected = config.input.classes is not None or isinstance(config.input.class_order, tuple)
    if held is not None and selected:
        info = replace(info, num_classes=held)
    network, count = _build(config.network, info, config.seed)
    outputs = Outputs(count, _known_names(config.input, count), where)
    path = Path(f"{config.network.name} (pretrained)")
    teacher = _described(config, network, path, dataset, outputs, channels)
    return replace(teacher, new_head=held is not None and held != count)


def _described(
    config: TeacherConfig,
    network: nn.Module,
    path: Path,
    dataset: Dataset,
    outputs: Outputs,
    channels: int,
    stated: Mapping[str, Normalisation] | None = None,
) -> LoadedTeacher:
    """Build a card from the settings and the data set, for weights without one.

    stated: what the file says of its normalisation.
    """
    chosen = chosen_outputs(config.input, dataset.classes, outputs)
    expected = stated_constants(
        stated or {}, config.input, channels, dataset.pixel_type, f"{outputs.where}: {path}"
    )
    default = expected.constants or own_normalisation(network, dataset.normalisation)
    normalisation = constants_of(config.input, default, channels, dataset.pixel_type, outputs.where)
    info = seen_by(dataset, config.image_size, channels)
    card = make_card(config.network, network, dataset, {}, config.image_size, info)
    card = replace(
        card,
        normalisation=normalisation,
        outputs=chosen,
        num_outputs=None if chosen is None else outputs.count,
        sha256=sha256_of(path) if path.is_file() else "",
    )
    from_network = default is not dataset.normalisation
    guesses = config.input.classes is None and config.input.class_order is None
    notes = [
        _constants_note(config.input, card, from_network, outputs.where, expected.source),
        *expected.notes,
        *transform_note(network, card.normalisation, outputs.where),
        *_conversion_notes(_channels(dataset), channels, config.image_size),
        f"outputs: {format_mapping(chosen, dataset.classes, outputs.names)}"
        + (f" (no {outputs.where}.class_order)" if guesses and chosen is None else ""),
    ]
    described = f"{outputs.where} {card.name} (weights without a card): {'; '.join(notes)}"
    return LoadedTeacher(
        network,
        config.network,
        card,
        path,
        False,
        guesses and outputs.count == len(dataset.classes),
        notes=(described,),
    )


def _constants_note(
    settings: TeacherInput, card: NetworkCard, from_network: bool, where: str, stated: str
) -> str:
    mean, std = (
        ", ".join(f"{x:.4g}" for x in values)
        for values in (card.normalisation.mean, card.normalisation.std)
    )
    source = f"of the data set ({where}.mean and {where}.std not given)"
    if from_network:
        source = f"as the file states ({stated})" if stated else "of its pretrained weights"
    if settings.mean is not None:
        source = "as given"
    return f"mean [{mean}], std [{std}] {source}"


def _conversion_notes(source: int, target: int, image_size: tuple[int, int] | None) -> list[str]:
    notes = []
    if source != target:
        to_grey = "colour images converted to grey (0.299 R + 0.587 G + 0.114 B)"
        notes.append(to_grey if target == 1 else f"grey images repeated to {target} channels")
    if image_size is not None:
        notes.append(f"images resized to {image_size[1]}×{image_size[0]}")
    return notes


def _build(config: NetworkConfig, info: InputInfo, seed: int) -> tuple[nn.Module, int]:
    """Build the network with seeded initial weights. Returns it and its number of outputs."""
    torch.manual_seed(derive(seed, "weights"))
    return build_with_outputs(config, info, "teacher")


def _channels(dataset: Dataset) -> int:
    return dataset.info.in_channels


def _compose(first: tuple[int, ...] | None, then: tuple[int, ...]) -> tuple[int, ...]:
    """Compose two output selections."""
    return then if first is None else tuple(first[number] for number in then)


def _outputs_held(shapes: Mapping[str, torch.Size], network: nn.Module, count: int) -> int | None:
    """Infer the weights' number of outputs from tensors that differ only in dimension 0."""
    sizes = set()
    for name, parameter in network.state_dict().items():
        there = shapes.get(name)
        if there is None or there == parameter.shape or not parameter.dim():
            continue
        if (
            parameter.shape[0] == count
            and len(there) == parameter.dim()
            and there[1:] == parameter.shape[1:]
        ):
            sizes.add(there[0])
    return sizes.pop() if len(sizes) == 1 else None


def _check_channels(
    path: Path,
    shapes: Mapping[str, torch.Size],
    network: nn.Module,
    channels: int,
    data_channels: int,
    where: str,
) -> None:
    """Raise ConfigError if the weights expect grey images and the data is colour, or vice versa."""
    for name, parameter in network.state_dict().items():
        there = shapes.get(name)
        if there is None or len(there) != parameter.dim() or parameter.dim() < 3:
            continue
        weight_channels = there[1]
        same = (parameter.shape[0], parameter.shape[2:]) == (there[0], there[2:])
        if (
            same
            and parameter.shape[1] == channels != weight_channels
            and weight_channels in CHANNELS
        ):
            kinds = {1: "grey", 3: "colour"}
            raise ConfigError(
                f"{path} takes {kinds[weight_channels]} images ({name} is {list(there)}), and "
                f"the data set's are {kinds.get(data_channels, f'of {data_channels} channels')}: "
                f"set {where}.channels={weight_channels}, and they are converted for it."
            )


def _known_names(settings: TeacherInput, count: int) -> tuple[str, ...] | None:
    """ImageNet's class names, if the network has 1000 outputs and classes are set by name."""
    wanted = [name for name in settings.classes or () if isinstance(name, str)]
    if count != IMAGENET_CLASSES or not wanted or settings.class_order is not None:
        return None
    return imagenet_names(wanted)


def _refuse_contradictions(
    settings: TeacherInput, card: NetworkCard, path: Path, where: str
) -> None:
    """Raise ConfigError for settings that contradict the card."""
    constants = card.normalisation
    described: dict[str, object] = {
        "mean": constants.mean,
        "std": constants.std,
        "channels": card.info.in_channels,
        "class_order": card.classes,
    }
    for key, of_card in described.items():
        value = getattr(settings, key)
        if isinstance(value, float):
            value = (value,) * card.info.in_channels
        if value is None or value == of_card:
            continue
        shown = list(of_card)[:5] if isinstance(of_card, tuple) else of_card
        raise ConfigError(
            f"{where}.{key} is for weights without a card, and the card of {path} says {shown}: "
            f"leave {where}.{key} out, or name a copy of the weights without the .json."
        )
