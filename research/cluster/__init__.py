"""Ranks, their process group and signals; launching and submitting jobs under SLURM."""
