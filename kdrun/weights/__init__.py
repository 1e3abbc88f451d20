"""Read weights files without running their code, and match them to a network."""
