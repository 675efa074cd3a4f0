"""Language models that answer yes or no."""
