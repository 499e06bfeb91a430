"""q(z): the encoder, the Variational Lookup Table, and the values at which a table starts.

Each is called with the encoder's input and the particles' indices, and gives mu and logvar, both (B, zdim).
"""
