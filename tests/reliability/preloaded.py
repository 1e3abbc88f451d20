"""What a forked child finds imported: all that a command needs, so that it starts at once."""

import gc

import torch._dynamo  # imported by the first step of an optimizer

import kdrun.cli.execution
import kdrun.cli.main
import kdrun.cli.peers
import kdrun.commands.distill
import kdrun.commands.resume
import kdrun.configs
import kdrun.data.sources
import kdrun.losses.kd
import kdrun.models.cnn
import kdrun.schemes.offline
import kdrun.sweeps.execute
import kdrun.sweeps.executor  # noqa: F401

gc.collect()
gc.freeze()  # a child's collections pass over all of this
