"""The machine: processors, signals, disk errors, the Slurm queue.

Nothing here knows a configuration or a run.
"""
