"""Matplotlib figures of runs; ``python -m experiments figures RUN`` draws them again.

Figures are drawn from a run's files, never from a model in memory.
"""
