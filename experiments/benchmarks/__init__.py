"""How fast the suite is, and whether its fast code paths reproduce the reference numbers.

``python -m experiments benchmark`` lists the programs.
"""
