"""From files to tensors: particles, their poses and CTF, selections, splits, preprocessing, digits.

Conventions are cryoDRGN's. What depends on a particle alone is computed once, here.
File formats belong to ``files``, and what the encoder sees to ``encoder_inputs``.
"""
