"""Intervals, tests, power, expected validation performance and sources of variance, from scores and counts."""
