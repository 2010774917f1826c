"""Train a task's module: build, steps, optimiser, checkpoints, callbacks, the end of a run."""
