"""From recorded runs to the paper. Reads run folders and nothing else: no model, no network, no torch."""
