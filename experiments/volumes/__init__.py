"""V(z): decoded, written as .mrc, compared, rendered.

``python -m experiments volumes RUN`` writes volumes of a finished run.
"""
