"""Many jobs of one command: planned, launched, shown and ranked."""
