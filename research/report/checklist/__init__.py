"""The reproducibility checklist, answered from run records."""
