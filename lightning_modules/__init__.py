"""Everything that is computed during training: data, encoder inputs, latents, decoder, loss."""
