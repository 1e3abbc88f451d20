"""Lockstep sweeps (`gang=true`): jobs with the same batches and teacher advance together.

The rest of kdrun does not know about them. They plug in at two places: the sweep runner calls
`jobs.run_jobs` instead of a launcher, and each job runs in a `session.LockstepSession`, which
overrides the factory methods of `kdrun.distillation.session.Session`. They need greenlet
(`pip install 'kdrun[lockstep]'`).
"""

import importlib.util

from kdrun.errors import MissingExtraError


def require_greenlet() -> None:
    """Raise MissingExtraError where greenlet is not installed."""
    if importlib.util.find_spec("greenlet") is None:
        raise MissingExtraError("greenlet", "lockstep", "gang=true")
