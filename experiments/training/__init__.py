"""One training around Lightning, in one process or several, with checkpoints and progress.

What is trained belongs to ``lightning_modules``, and what happens afterwards to ``tasks``.
"""
