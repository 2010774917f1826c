"""Searches: workers that share a study and run its trials, each trial a run over its seeds."""
