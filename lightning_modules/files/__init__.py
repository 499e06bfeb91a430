"""Bytes that nobody vouches for: readers of files from outside, and atomic writes.

A reader here checks a file's kind, size and structure before it believes anything, and runs nothing that is in it.
It knows formats (.mrcs, .star, .cs, .npz, pickle, YAML, IDX), not what a particle is.
"""
