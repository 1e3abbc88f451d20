"""A hint of images that lost their content: all images of a split equal, or nearly constant."""

import torch

from kdrun.data.images import Split

SAMPLE = 256
FEW_LEVELS = 8  # of 255
ADVICE = "check the files, dataset.value_range and dataset.background"


def degenerate_notes(splits: dict[str, Split]) -> list[str]:
    """A sentence for each split whose images are all equal, or hardly vary within an image.

    Of a large split, 256 images spread evenly over it are looked at.
    """
    notes = []
    for name, split in splits.items():
        if len(split) < 2:
            continue
        chosen = torch.linspace(0, len(split) - 1, min(len(split), SAMPLE)).round().long()
        images = split.gather(chosen).flatten(1)
        limit = FEW_LEVELS if images.dtype == torch.uint8 else 0
        spread = images.amax(1).float() - images.amin(1).float()
        which = "all" if len(chosen) == len(split) else f"{len(chosen)} sampled"
        if bool((images == images[0]).all()):
            notes.append(f"The {name} images ({which}) are identical: {ADVICE}.")
        elif bool((spread <= limit).all()):
            notes.append(
                f"The {name} images ({which}) are nearly constant, at most "
                f"{spread.max():.0f} levels apart within an image: {ADVICE}."
            )
    return notes
