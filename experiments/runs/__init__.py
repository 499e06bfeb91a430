"""A run: its configuration, folder, state, provenance, particles and model; each is carried out once.

``run`` and ``state`` read small files alone. ``building`` is where torch is first needed.
"""
