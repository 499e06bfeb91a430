"""Names of the files in a run's folder that several rooms use."""

MAP = "latent_map.npz"
HELDOUT = "heldout.npz"
RECONSTRUCTIONS = "reconstructions.npz"
