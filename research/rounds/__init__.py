"""Runs in rounds, each of which decides what the next one is trained on."""
