"""From conf/ to a checked, hashed configuration and back; wrong input as one clear line.

This room never imports torch, so that finding a finished run is quick.
"""
