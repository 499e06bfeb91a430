"""Hydra's own sweeper, for runs that know whether they are finished and what they need (conf/hydra/sweeper)."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

if TYPE_CHECKING:
    from experiments.sweeps.planning import Planned

logger = logging.getLogger(__name__)


class GridSweeper(BasicSweeper):
    """Launches what is not finished yet, sources first, and ends with the table of all runs."""

    def __init__(self, params: dict[str, str] | None = None) -> None:
        """Set what is swept over beside the command line, which wins: ``hydra.sweeper.params``, as of Hydra's own."""
        super().__init__(max_batch_size=None, params=params)

    def sweep(self, arguments: list[str]) -> None:
        """Carry out every combination of the overrides.

        Raises:
            SweepError: not all runs are finished in the end.
        """
        from experiments.sweeps import planning

        assert self.config is not None and self.hydra_context is not None
        parsed = OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(
            [*self._parse_config(), *arguments]
        )
        (combinations,) = self.split_arguments(parsed, None)
        precision = getattr(self.launcher, "auto_precision", None)
        entries = [planning.wanted(overrides, self._compose(overrides), precision) for overrides in combinations]
        runs = [entry for entry in entries if isinstance(entry, planning.Planned)]
        todo = planning.plan(runs)
        finished = len({entry.run.folder for entry in runs}) - len(todo)
        logger.info("%d to do, %d finished already", len(todo), finished)
        if todo:
            self._launch(todo)
        planning.report(entries)

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        assert self.config is not None and self.hydra_context is not None
        composed = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(composed):
            del composed["hydra"]
        return composed

    def _launch(self, todo: "list[Planned]") -> None:
        from experiments.sweeps import planning

        assert self.config is not None and self.launcher is not None
        sweep = Path(self.config.hydra.sweep.dir).resolve()
        sweep.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, sweep / "multirun.yaml")
        if hasattr(self.launcher, "launch_grid"):
            self.launcher.launch_grid(todo, sweep)
            return
        with planning.submitted(todo, sweep):
            self.launcher.launch([list(entry.overrides) for entry in todo], initial_job_idx=0)
