"""Tests: one file per module, each stating facts of the science."""
