"""From a model and its masks to a verified engine."""
