"""Finished networks used again: measured, shown images, drawn."""
