"""Rules between the settings of an augmentation."""

from kdrun.config.augment import NO_POLICY, POLICIES, POLICY_SETTINGS, AugmentConfig
from kdrun.config.convert import check_ranges
from kdrun.config.settings import settings_of
from kdrun.errors import ConfigError


def augment(where: str, config: AugmentConfig, has_teacher: bool) -> None:
    """Check one augmentation. has_teacher: whether a frozen teacher sees the images."""
    check_ranges(config, where)
    _interval(f"{where}.scale", config.scale, most=1)
    _interval(f"{where}.ratio", config.ratio)
    _interval(f"{where}.erasing.scale", config.erasing.scale, most=1)
    _interval(f"{where}.erasing.ratio", config.erasing.ratio)
    if config.magnitude > 10 and "timm_randaugment" in (config.policy, config.strong):
        raise ConfigError(
            f"{where}.magnitude={config.magnitude:g} must be at most 10 with timm_randaugment."
        )
    _unread(where, config)
    for name in ("mixup", "cutmix"):
        mixing = getattr(config, name)
        if mixing.prob != 1 and not mixing.alpha:
            raise ConfigError(
                f"{where}.{name}.prob={mixing.prob:g} has no effect without {where}.{name}.alpha, "
                f"e.g. {where}.{name}.alpha=0.2: set it, or leave {where}.{name}.prob out."
            )
    if has_teacher:
        _teacher_view(where, config)
        return
    if config.teacher_view != "same":
        raise ConfigError(
            f"{where}.teacher_view={config.teacher_view} is about the images of a frozen teacher, "
            f"and none sees these: leave {where}.teacher_view out."
        )


def _interval(name: str, bounds: list[float], most: float | None = None) -> None:
    low, high = bounds
    if low > high or (most is not None and high > most):
        limit = f", at most {most:g}" if most is not None else ""
        raise ConfigError(
            f"{name}=[{low:g},{high:g}] must be [smallest, largest]{limit}, e.g. "
            f"'{name}=[{min(low, high, most or low):g},{min(max(low, high), most or high):g}]'."
        )


def _unread(where: str, config: AugmentConfig) -> None:
    """Refuse settings that differ from their default and are not read."""
    read_by = {"scale": "crop=resized", "ratio": "crop=resized"} if config.crop != "resized" else {}
    if not config.crop_padding:
        read_by["padding_mode"] = "crop_padding=4"
    for key in POLICY_SETTINGS:
        if key == "interpolation" and config.crop == "resized":
            continue
        if key not in (*POLICIES[config.policy], *POLICIES[config.strong or NO_POLICY]):
            readers = [policy for policy, keys in POLICIES.items() if key in keys]
            read_by[key] = f"policy={' or '.join(readers)}"
            if key == "interpolation":
                read_by[key] += " or crop=resized"
    if not (config.mixup.alpha and config.cutmix.alpha):
        read_by["switch_prob"] = "mixup.alpha with cutmix.alpha"
    for each in settings_of(AugmentConfig):
        value = getattr(config, each.name)
        if each.name in read_by and value != each.default:
            raise ConfigError(
                f"{where}.{each.key}={_text(value)} has no effect here: "
                f"{where}.{read_by[each.name]} reads it; leave {where}.{each.key} out."
            )


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _teacher_view(where: str, config: AugmentConfig) -> None:
    if config.mixes and config.teacher_view in ("fixed", "independent"):
        raise ConfigError(
            f"{where}.teacher_view={config.teacher_view} shows the teacher other images than the "
            f"student's mixtures: set {where}.teacher_view=same or weak, or leave mixup and cutmix "
            "out."
        )
