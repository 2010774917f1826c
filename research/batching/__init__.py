"""From encoded examples to micro-batches: store, step plan, packing, loaders."""
