"""`kdrun benchmark`: where the time of a training step goes."""
