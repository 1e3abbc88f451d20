"""What the process that is forked has imported: all that a command needs, and nothing started."""

import kdrun.cli.execution
import kdrun.cli.main
import kdrun.commands.resume
import kdrun.distillation.resume
import kdrun.sweeps.jobs  # noqa: F401 - torch among it
