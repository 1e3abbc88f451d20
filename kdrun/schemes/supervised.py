"""Training on labels only: teachers and baselines."""

from kdrun.schemes.base import StudentScheme


class Supervised(StudentScheme):
    """Cross-entropy, without teachers."""
