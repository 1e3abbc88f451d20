"""Features by name: taps, their detection, forward hooks, and student-teacher pairs."""
