"""Many runs: the order in which a sweep carries them out, and how they stand.

``python -m experiments status`` shows the table.
"""
