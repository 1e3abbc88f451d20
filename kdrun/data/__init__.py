"""Data sets, their splits, and loaders of normalised batches."""

from kdrun.data.dataset import Dataset, open_dataset
from kdrun.data.images import LazyImages, RawDataset, Split
from kdrun.data.loaders.loaders import EvalLoader, TrainLoader
from kdrun.data.loaders.resident import choose_resident

__all__ = [
    "Dataset",
    "EvalLoader",
    "LazyImages",
    "RawDataset",
    "Split",
    "TrainLoader",
    "choose_resident",
    "open_dataset",
]
