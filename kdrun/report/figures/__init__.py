"""Figures of a run's networks: what they answer, get wrong and see on the test split."""
