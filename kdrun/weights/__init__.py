"""Weights from files of any origin: read without running code, matched to a network."""
