"""A finished network outside kdrun: loaded in Python, or written for other programs and checked."""
