"""Use finished networks: evaluate, predict, draw figures."""
