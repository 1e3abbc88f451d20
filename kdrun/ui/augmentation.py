"""Describe an augmentation, for run headers and figures."""

from kdrun.config.augment import POLICIES, AugmentConfig


def format_augment(augment: AugmentConfig) -> str:
    """`resized crop, flip, randaugment (num_ops 2, magnitude 9), erasing 0.25, cycle 8`."""
    parts = []
    if augment.crop == "resized":
        parts.append(f"resized crop {augment.scale[0]:g} to {augment.scale[1]:g}")
    elif augment.crop_padding:
        parts.append(f"crop padding {augment.crop_padding}")
    if augment.interpolation != "bilinear":
        parts.append(f"{augment.interpolation} interpolation")
    if augment.flip:
        parts.append("flip")
    if augment.policy != "none":
        values = [
            f"{key} {getattr(augment, key):g}"
            for key in POLICIES[augment.policy]
            if key != "interpolation"
        ]
        parts.append(augment.policy + (f" ({', '.join(values)})" if values else ""))
    jitter = augment.color_jitter
    factors = [jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue]
    if any(factors):
        parts.append(f"jitter {'/'.join(f'{factor:g}' for factor in factors)}")
    if augment.erasing.prob:
        parts.append(f"erasing {augment.erasing.prob:g} ({augment.erasing.mode})")
    for name, mixing in (("mixup", augment.mixup), ("CutMix", augment.cutmix)):
        if mixing.alpha and mixing.prob:
            parts.append(f"{name} {mixing.alpha:g}")
    if augment.cycle is not None:
        parts.append(f"cycle {augment.cycle}")
    if augment.teacher_view != "same":
        parts.append(f"teacher's view {augment.teacher_view}")
    if augment.strong is not None:
        parts.append(f"strong view {augment.strong}")
    return ", ".join(parts) or "none"
