"""Loggers beside W&B, a file each: a class `Logger(keys, folder)` that is a logger of Lightning's."""
