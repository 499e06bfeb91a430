"""Particle stacks with known conformations, written to disk in cryoDRGN's formats.

Nothing here is used by training: simulated particles are read back like anybody's.
"""
