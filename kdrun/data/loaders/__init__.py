"""Training and evaluation batches: order, augmentation, workers."""
