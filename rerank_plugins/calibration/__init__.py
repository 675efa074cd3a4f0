"""Calibration: fit a curve to judged scores, measure it on held-out queries, and store it in a file."""
