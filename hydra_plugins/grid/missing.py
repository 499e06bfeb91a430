"""What stands for a launcher whose library is not installed."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher


class MissingLauncher(Launcher):
    """Says what is missing, once somebody asks for it.

    Attributes:
        needs: what to say.
    """

    needs = ""

    def __init__(self, **options: Any) -> None:
        from lightning_modules.errors import InputError

        raise InputError(self.needs)

    def setup(self, **context: Any) -> None:
        """Never reached."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Never reached."""
        return []
