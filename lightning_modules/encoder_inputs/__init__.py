"""What the encoder sees: the particle, an evil twin of it, or an altered or augmented image.

Each input is a class with one call signature; the loss always compares with the particle itself (paper, section 3).
"""
