"""Layers and kernels: the residual MLP, the decoder of slices, and their compiled routines.

A network here maps arrays to arrays. It knows neither particles nor q(z) nor a loss.
``native/`` holds the C++ that is compiled on first use.
"""
