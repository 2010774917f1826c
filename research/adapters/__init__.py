"""Adapters: which weights of a model are trained, and which are added to it; a file each, found by its name."""
