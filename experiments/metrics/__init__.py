"""Numbers from arrays: latents, truth, FSC, agreement of two embeddings.

A function here takes arrays and returns numbers. It reads no file, knows no run and imports nothing of the project.
"""
