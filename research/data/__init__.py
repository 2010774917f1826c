"""Read data files and data sets of the hub, check them, and collect their labels."""
