"""Detect images that lost their content: identical within a split, or nearly constant."""

import torch

from kdrun.data.images import Split

FEW_LEVELS = 8  # of 255
ADVICE = "check the files, dataset.value_range and dataset.background"


def degenerate_notes(splits: dict[str, Split]) -> list[str]:
    """A note for each split whose images (`Split.sample`) are all identical or nearly constant."""
    notes = []
    for name, split in splits.items():
        if len(split) < 2:
            continue
        images = split.sample().flatten(1)
        limit = FEW_LEVELS if images.dtype == torch.uint8 else 0
        spread = images.amax(1).float() - images.amin(1).float()
        which = "all" if len(images) == len(split) else f"{len(images)} sampled"
        if bool((images == images[0]).all()):
            notes.append(f"The {name} images ({which}) are identical: {ADVICE}.")
        elif bool((spread <= limit).all()):
            notes.append(
                f"The {name} images ({which}) are nearly constant, at most "
                f"{spread.max():.0f} levels apart within an image: {ADVICE}."
            )
    return notes
