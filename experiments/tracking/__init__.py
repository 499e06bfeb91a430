"""Weights & Biases, and nothing else: loggers, uploaded results, the dashboard."""
