"""Order and step: which particles come when, and how parameters change.

Minibatch order is a function of (seed, epoch), so a run continues exactly where it stopped.
Steps run in one process or several, and on a GPU as one CUDA graph.
"""
