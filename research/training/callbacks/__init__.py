"""Lightning callbacks, a file each.

Order at a step: log, save, then evaluate. A checkpoint is always older than the evaluation due at its step, and
resuming from it runs that evaluation first, so a kill at any moment loses nothing and repeats exactly.
"""
