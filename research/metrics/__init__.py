SMALLER_IS_BETTER = ("loss", "calibration_error")  # of every other score, larger is
