"""Calibration: the file that holds a fitted curve and whose scores it is for, how it is fitted, and how well it holds."""
