"""What ``task=`` names: train, heldout, amortization, infer; and the verification of finished runs.

Each task is a class that is called with a run and returns its metrics.
"""
