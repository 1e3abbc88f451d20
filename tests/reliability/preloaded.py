"""What a forked child finds imported: all that a command needs, so that it starts at once."""

import gc
import importlib

MODULES = (
    "torch._dynamo",  # the first step of an optimizer imports it
    "kdrun.cli.main",
    "kdrun.cli.execution",
    "kdrun.commands.distill",
    "kdrun.commands.resume",
    "kdrun.configs",
    "kdrun.data.sources",
    "kdrun.losses.kd",
    "kdrun.models.cnn",
    "kdrun.schemes.offline",
    "kdrun.sweeps.executor",
    "kdrun.sweeps.jobs",
)

for _name in MODULES:
    importlib.import_module(_name)

gc.collect()
gc.freeze()  # a child's collections pass over all of this
