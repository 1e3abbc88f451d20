"""Learning-rate schedules and optimisers: one registered function each."""
