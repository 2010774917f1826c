"""The schema of an experiment and how YAML, `extends` and overrides fill it; nothing here imports torch."""
