"""One self-contained HTML page about many runs: ``python -m experiments report runs -o report.html``.

``contents`` says what is on the page, ``pictures``, ``surfaces`` and ``curves`` prepare what is seen, ``page``
lays it out with the templates. Nothing is computed that a run has not stored, but for the pictures of volumes.
"""
