"""An augmentation in words."""

import pytest

from kdrun.config.augment import AugmentConfig, ErasingConfig, JitterConfig, MixConfig
from kdrun.ui.augmentation import format_augment


@pytest.mark.parametrize(
    ("augment", "text"),
    [
        (AugmentConfig(), "none"),
        (AugmentConfig(2, True), "crop padding 2, flip"),
        (
            AugmentConfig(crop="resized", color_jitter=JitterConfig(0.4, 0.4, 0.4)),
            "resized crop 0.08 to 1, jitter 0.4/0.4/0.4/0",
        ),
        (
            AugmentConfig(policy="randaugment", cycle=4, mixup=MixConfig(0.8)),
            "randaugment (num_ops 2, magnitude 9), mixup 0.8, cycle 4",
        ),
        (
            AugmentConfig(erasing=ErasingConfig(0.25), teacher_view="weak", strong="autoaugment"),
            "erasing 0.25 (const), teacher's view weak, strong view autoaugment",
        ),
    ],
)
def test_only_what_happens_is_named(augment: AugmentConfig, text: str) -> None:
    assert format_augment(augment) == text
