"""Fake quantisation of a network in training, and the integer form of the trained network."""
