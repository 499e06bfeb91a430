"""Seeds of one experiment are one row; those that did not converge are counted, not dropped."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from experiments.configuration.compose import compose, to_dict
from experiments.configuration.validation import check
from experiments.report import seeds
from experiments.runs.execution import execute
from experiments.runs.folders import DAMAGED, FAILED, FINISHED, UNFINISHED, RunFolder, find
from lightning_modules.elbo import Elbo, bernoulli_negative_elbo
from lightning_modules.errors import InputError
from lightning_modules.vae.digit_vae import DigitVAE
from tests.test_mnist_grid import SETTINGS


def run(seed: int, status: str = FINISHED, *overrides: str, **metrics: float) -> RunFolder:
    config = to_dict(check(compose("+exp=mnist_vae", f"seed={seed}", *overrides)))
    return RunFolder(Path(f"/runs/{seed}"), status, config, metrics)


def test_the_spread_of_known_numbers() -> None:
    spread = seeds.Spread.of([1.0, 2.0, 3.0])
    assert (spread.mean, spread.median, spread.std, spread.least, spread.most) == (2, 2, 1, 1, 3)
    assert str(spread) == "2 \u00b1 1 | 2 | 1 to 3"


def test_one_seed_has_no_spread() -> None:
    spread = seeds.Spread.of([2.5])
    assert spread.std is None and str(spread) == "2.5 | 2.5 | 2.5 to 2.5"


def test_runs_that_differ_in_the_seed_alone_are_one_row() -> None:
    found = [run(seed, **{"loss/total": 10.0 + seed, "loss/kl": 5.0}) for seed in (2, 0, 1)]
    (group,) = seeds.collect(found)
    assert (group.experiment, group.finished) == ("+exp=mnist_vae", [0, 1, 2])
    assert group.spreads["loss/total"] == seeds.Spread(11, 11, 1, 10, 12)
    assert "latents/knn_hinge_r2" not in group.spreads


def test_another_learning_rate_is_another_row_and_another_folder_of_the_data_is_not() -> None:
    found = [run(0), run(1, FINISHED, "lr=1e-3"), run(2, FINISHED, "data=mnist"), run(3, FINISHED, "data=mnist")]
    found[3].config["data"]["root"] = "/elsewhere"
    assert [(group.experiment, group.finished) for group in seeds.collect(found)] == [
        ("+exp=mnist_vae", [0]),
        ("+exp=mnist_vae lr=0.001", [1]),
        ("data=mnist +exp=mnist_vae", [2, 3]),
    ]


def test_seeds_that_did_not_converge_are_counted() -> None:
    found = [
        run(0, **{"loss/kl": 5.0, "loss/total": 1.0}),
        run(1, FAILED),
        run(2, **{"loss/kl": 0.001, "loss/total": 3.0}),
        run(3, UNFINISHED),
        RunFolder(Path("/runs/broken"), DAMAGED),
    ]
    (group,) = seeds.collect(found)
    assert (group.finished, group.failed, group.collapsed, group.unfinished) == ([0, 2], [1], [2], [3])
    assert group.spreads["loss/total"].mean == 2
    assert "2 finished, 1 failed, 1 collapsed, 1 stuck, 1 unfinished" in seeds.table([group])


def test_a_seed_that_got_stuck_is_counted_and_stays_in_the_mean() -> None:
    """Four seeds alike, and one that uses a single dimension of z."""
    losses = (151.8, 156.6, 187.5, 149.6, 148.5)
    (group,) = seeds.collect([run(seed, **{"loss/total": loss, "loss/kl": 2.3}) for seed, loss in enumerate(losses)])
    assert (group.stuck, group.collapsed) == ([2], [])
    assert group.spreads["loss/total"].mean == pytest.approx(158.8)
    assert group.spreads["loss/total"].median == 151.8


def test_a_run_whose_loss_is_no_number_any_more_is_a_failed_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = f"paths.runs={tmp_path}"
    execute(compose("+exp=mnist_vae", *SETTINGS, where))
    calls = itertools.count()

    def diverging(*args: Any) -> Elbo:
        terms = bernoulli_negative_elbo(*args)
        return terms._replace(total=terms.total * (1.0 if next(calls) < 4 else float("nan")))

    monkeypatch.setattr(DigitVAE, "loss", staticmethod(diverging))
    with pytest.raises(InputError, match="the loss became nan in epoch 2"):
        execute(compose("+exp=mnist_vae", *SETTINGS, where, "seed=1"))
    (group,) = seeds.collect(find([tmp_path]))
    assert (group.finished, group.failed) == ([0], [1])


def test_the_command_prints_the_table_and_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        execute(compose("+exp=mnist_vlt", *SETTINGS, f"paths.runs={tmp_path}", f"seed={seed}"))
    assert seeds.main([str(tmp_path), "--metrics", "loss/total", "loss/kl"]) == 0
    printed = capsys.readouterr().out
    (group,) = json.loads((tmp_path / "seeds.json").read_text())
    assert group["finished"] == [0, 1] and set(group["spreads"]) == {"loss/total", "loss/kl"}
    assert "+exp=mnist_vlt" in printed and printed.splitlines()[-1] == str(tmp_path / "seeds.json")


def test_a_folder_without_runs_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert seeds.main([str(tmp_path)]) == 1
    assert "no run in it" in capsys.readouterr().err
