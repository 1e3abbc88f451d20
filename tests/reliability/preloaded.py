"""What the process that is forked has imported: all that a command needs, and nothing started."""

import kdrun.cli.app
import kdrun.cli.main
import kdrun.commands.resume
import kdrun.sweeps.execute  # noqa: F401 - torch among it
