"""Is the encoder of a run of ``cryodrgn train_vae`` amortizing or memorizing? ``+exp=audit audit.run=PATH``.

``settings`` reads its configuration, ``particles`` its data and ``model`` its
weights, as parts of this suite. ``measures`` says what z is worth, ``verdict`` what that means, ``page`` shows it.
Nothing in the folder is run or changed.
"""
