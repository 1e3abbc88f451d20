"""Augmentation of whole batches on the device, from random numbers per image and epoch."""
