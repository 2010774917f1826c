"""What a run leaves behind: run folder, predictions, provenance, cost, Weights & Biases."""
