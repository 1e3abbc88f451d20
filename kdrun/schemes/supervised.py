"""Training on labels alone: teachers, and the student without one."""

from kdrun.schemes.base import StudentScheme


class Supervised(StudentScheme):
    """The objective without teachers: cross-entropy."""
