"""What a forked child finds imported: all that a command needs, so that it starts at once."""

import gc
import importlib

import kdrun.sweeps.execute

import kdrun.cli.main
import kdrun.commands.distill
import kdrun.commands.resume
import kdrun.sweeps.executor  # noqa: F401

for name in (
    "torch._dynamo",  # the first step of an optimizer imports it
    "kdrun.cli.peers",
    "kdrun.configs",
    "kdrun.data.sources",
    "kdrun.losses.kd",
    "kdrun.models.cnn",
    "kdrun.schemes.offline",
):
    importlib.import_module(name)

gc.collect()
gc.freeze()  # a child's collections pass over all of this
