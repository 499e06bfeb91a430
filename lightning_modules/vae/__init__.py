"""The models: decoder, q(z), input and loss put together as Lightning modules.

Only ``experiments`` imports this room.
"""
