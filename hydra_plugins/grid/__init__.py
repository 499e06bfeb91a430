"""How this suite's sweeps are carried out; Hydra finds its plugins in this package and in no other."""
