"""The paper's statements, and how finished runs decide them.

``python -m experiments claims RUNS`` prints the verdicts.
"""
