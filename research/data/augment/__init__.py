"""Change training texts in each epoch: one file an operation, seeded by (seed, epoch, id)."""
