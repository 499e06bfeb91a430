"""The claims: what holds where the paper is right, what does not where it is wrong, and when it is inconclusive."""

import json
import shutil
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from cryodrgn.mrcfile import write_mrc

from experiments.claims import similarity
from experiments.claims.__main__ import main
from experiments.claims.comparable_runs import ComparableRuns, group
from experiments.claims.criteria import Differs, Measure
from experiments.claims.findings import FAILS, HOLDS, NO_LABELS, UNKNOWN, Claim
from experiments.claims.paper_claims import CLAIMS, judge
from experiments.claims.wording import in_words, markdown
from experiments.runs.folders import find, look
from tests import world
from tests.tiny import tiny

ABOUT_CRYO_EM = [f"C{i}" for i in range(1, 12)]


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """A grid of runs in which all that the paper says about cryo-EM is so."""
    return world.paper_is_right(tmp_path_factory.mktemp("right"))


@pytest.fixture
def copy(right, tmp_path):
    """The same grid, to be spoiled."""
    return shutil.copytree(right, tmp_path / "runs")


def verdicts(root):
    (found,) = judge(find([root]))
    return {judged.claim.name: judged for judged in found.judged}


def folders(root, experiment):
    return sorted((root / "simulated" / experiment).iterdir(), key=lambda folder: look(folder).seed)


def change(root, experiment, **numbers):
    """Change final numbers of all of an experiment's runs; a list has one for each seed."""
    for i, folder in enumerate(folders(root, experiment)):
        path = folder / "metrics.json"
        new = {key: value[i] if isinstance(value, list) else value for key, value in numbers.items()}
        path.write_text(json.dumps(json.loads(path.read_text()) | new))


def test_the_twelve_claims_are_there_each_with_its_place_in_the_paper():
    assert [claim.name for claim in CLAIMS] == [f"C{i}" for i in range(1, 13)]
    assert all(claim.statement.endswith(".") and claim.where and claim.criteria for claim in CLAIMS)


def test_where_the_paper_is_right_its_claims_hold(right):
    found = verdicts(right)
    assert {name: found[name].why for name in ABOUT_CRYO_EM} == dict.fromkeys(ABOUT_CRYO_EM, "")
    assert {found[name].verdict for name in ABOUT_CRYO_EM} == {HOLDS}


def test_nothing_is_judged_by_one_seed_of_the_baseline(copy):
    shutil.rmtree(folders(copy, "baseline")[1])
    shutil.rmtree(folders(copy, "baseline_small")[1])
    found = verdicts(copy)
    for name in ABOUT_CRYO_EM:
        judged = found[name]
        assert judged.verdict == UNKNOWN, name
        assert "too few seeds: 1 of baseline" in judged.why, name


def test_a_baseline_no_better_than_the_mean_volume_judges_nothing_but_times(copy):
    change(copy, "baseline", **{
        "volumes/per_image_fsc_auc": [0.41, 0.3996], "volumes/per_image_fsc_auc_of_mean": 0.4,
    })  # fmt: skip
    reason = (
        "baseline is undertrained: its volumes are no better than the mean volume (FSC area 0.3996 against 0.4, seed 1)"
    )
    found = verdicts(copy)
    for name in ABOUT_CRYO_EM:
        if name in ("C10", "C11"):  # by the small baseline, by seconds
            assert found[name].verdict == HOLDS
        else:
            assert (found[name].verdict, found[name].why) == (UNKNOWN, reason)


def test_a_baseline_that_is_better_than_the_mean_volume_judges(copy):
    change(copy, "baseline", **{"volumes/per_image_fsc_auc": 0.41, "volumes/per_image_fsc_auc_of_mean": 0.4})
    assert {judged.verdict for name, judged in verdicts(copy).items() if name in ABOUT_CRYO_EM} == {HOLDS}


def test_a_variant_no_better_than_the_mean_volume_is_judged(copy):
    change(copy, "vlt_zero", **{"volumes/per_image_fsc_auc": 0.3, "volumes/per_image_fsc_auc_of_mean": 0.4})
    assert verdicts(copy)["C1"].verdict == HOLDS


def test_one_seed_of_a_test_on_altered_images_is_not_enough(copy):
    shutil.rmtree(folders(copy, "shift_1px")[1])
    assert "too few seeds: 1 of shift_1px" in verdicts(copy)["C4"].why


def test_a_missing_run_is_named(copy):
    shutil.rmtree(copy / "simulated" / "vlt_zero")
    judged = verdicts(copy)["C1"]
    assert judged.verdict == UNKNOWN and judged.why == "missing run: vlt_zero"


def test_an_unfinished_run_is_no_evidence(copy):
    for folder in folders(copy, "evil_twin_noise"):
        (folder / "metrics.json").unlink()
    assert verdicts(copy)["C3"].why == "missing run: evil_twin_noise"


def test_without_labels_the_claims_are_judged_by_what_needs_none(copy):
    for path in copy.rglob("metrics.json"):
        kept = {key: value for key, value in json.loads(path.read_text()).items() if "knn" not in key}
        path.write_text(json.dumps(kept))
    found = verdicts(copy)
    assert {found[name].verdict for name in ABOUT_CRYO_EM} == {HOLDS}
    assert any(finding.why == NO_LABELS for finding in found["C1"].findings)


def test_a_claim_that_rests_on_labels_alone_cannot_be_judged_without(tmp_path):
    claim = Claim("X", "s", "w", (Differs("a", "says", Measure("k", "k", needs_labels=True), higher=True),))
    runs = {0: look(tmp_path), 1: look(tmp_path)}
    assert claim.judge(ComparableRuns({}, {"a": runs, "baseline": runs})).why == NO_LABELS


@pytest.mark.parametrize("experiment, claim", [
    ("vlt_random", "C1"), ("vlt_zero", "C1"), ("evil_twin_permuted_large", "C2"), ("evil_twin_noise", "C3"),
])  # fmt: skip
def test_latents_that_know_nothing_do_not_agree(copy, experiment, claim):
    for folder in folders(copy, experiment):
        mu = world.ignorant(7).astype(np.float32)
        np.savez(folder / "latents.npz", mu=mu, logvar=mu, index=np.arange(len(mu)))
    judged = verdicts(copy)[claim]
    assert judged.verdict == FAILS
    assert f"{experiment}: the same particles are near each other" in judged.why


def test_a_lower_class_accuracy_than_four_fifths_of_the_baselines_does_not_agree(copy):
    change(copy, "vlt_zero", **{"latents/knn_class_accuracy": 0.58})
    judged = verdicts(copy)["C1"]
    assert judged.verdict == FAILS and judged.why == "vlt_zero: z tells the classes"


def test_seeds_on_both_sides_of_a_threshold_do_not_tell(copy):
    change(copy, "vlt_zero", **{"latents/knn_class_accuracy": [0.58, 0.75]})
    judged = verdicts(copy)["C1"]
    assert judged.verdict == UNKNOWN and "seeds disagree" in judged.why


def test_a_difference_within_the_baselines_seeds_is_none(copy):
    change(copy, "baseline", **{"latents/knn_hinge_r2": [0.31, 0.50]})
    change(copy, "vlt_zero", **{"latents/knn_hinge_r2": 0.2})
    assert verdicts(copy)["C1"].verdict == HOLDS


def test_better_than_the_baseline_is_as_good(copy):
    change(copy, "vlt_zero", **{"latents/knn_class_accuracy": 0.95})
    assert verdicts(copy)["C1"].verdict == HOLDS


def test_a_standard_encoder_that_memorizes_is_reported_as_that_part(copy):
    change(copy, "evil_twin_permuted", **{"latents/knn_class_accuracy": 0.74})
    judged = verdicts(copy)["C2"]
    assert judged.verdict == FAILS and judged.why == "evil_twin_permuted: standard encoder: clusters are lost"
    assert "how many particles" in judged.claim.note


def test_volumes_of_the_wrong_particles_do_not_match(copy):
    for folder in folders(copy, "vlt_pretrained_frozen"):
        for i, volume in enumerate(world.blobs(3, states=np.roll(world.STATE, 1)[:6])):
            write_mrc(str(folder / "volumes" / f"first_{i + 1}.mrc"), volume, is_vol=True, Apix=3.0)
    judged = verdicts(copy)["C8"]
    assert judged.verdict == FAILS and judged.why == "vlt_pretrained_frozen: particles have the same volumes"


@pytest.mark.parametrize("experiment, claim, diversity", [
    ("vlt_zero_frozen", "C6", 0.01), ("vlt_random_frozen", "C7", 0.03), ("vlt_random", "C1", 0.01),
    ("evil_twin_permuted", "C2", 0.01), ("baseline_small", "C9", 0.01), ("evil_twin_permuted_small", "C10", 0.01),
])  # fmt: skip
def test_too_much_or_too_little_variability_of_volumes(copy, experiment, claim, diversity):
    change(copy, experiment, **{"volumes/diversity": [diversity, 1.02 * diversity]})
    assert verdicts(copy)[claim].verdict == FAILS


def test_an_encoder_that_follows_a_rule_does_not_move_far(copy):
    change(copy, "rotate_90", **{"amortization/displacement_ratio": 0.05, "amortization/neighbour_rank": 0.001})
    found = verdicts(copy)
    assert found["C5"].verdict == FAILS and found["C4"].verdict == HOLDS


def test_it_is_nothing_when_latents_move_that_say_nothing(copy):
    for folder in folders(copy, "baseline"):
        mu = world.ignorant(look(folder).seed).astype(np.float32)
        np.savez(folder / "latents.npz", mu=mu, logvar=mu, index=np.arange(len(mu)))
    judged = verdicts(copy)["C4"]
    assert judged.verdict == UNKNOWN and "says nothing" in judged.why


def test_nothing_can_be_lost_by_a_baseline_at_chance(copy):
    change(copy, "baseline", **{"latents/knn_class_accuracy": [0.25, 0.26]})
    assert "not above chance" in verdicts(copy)["C2"].why


def slow(root, experiment, seconds):
    for folder, value in zip(folders(root, experiment), seconds, strict=True):
        rows = [f"{epoch},0.6,{value}" for epoch in range(1, 6)]
        (folder / "log.csv").write_text("\n".join(["epoch,loss/total,time/epoch_s", *rows]) + "\n")


def test_a_variant_that_takes_longer_is_found(copy):
    slow(copy, "evil_twin_permuted_large", [3.2, 3.3])
    assert verdicts(copy)["C11"].verdict == FAILS


def test_a_clock_that_differs_between_the_baselines_seeds_tells_nothing(copy):
    slow(copy, "baseline", [2.0, 4.0])
    judged = verdicts(copy)["C11"]
    assert judged.verdict == UNKNOWN and "no steady clock" in judged.why


def test_a_busy_moment_of_the_machine_does_not_count(copy):
    for folder in folders(copy, "evil_twin_permuted_large"):
        (folder / "log.csv").write_text("epoch,loss/total,time/epoch_s\n1,1,9\n2,1,2.0\n3,1,30\n")
    assert verdicts(copy)["C11"].verdict == HOLDS


def test_a_first_epoch_that_warms_up_does_not_count(right):
    (finding,) = verdicts(right)["C11"].findings
    assert finding.values == (2.0,) * 4  # the world's first epochs take five times as long


@dataclass(frozen=True)
class Digits:
    """A final result of the MNIST runs, as found by ``look``."""

    name: str
    seed: int
    metrics: dict
    config: dict = field(default_factory=lambda: {"data": {"name": "digits"}, "trainer": {"max_epochs": 100}})
    status: str = "finished"

    def number(self, key):
        return self.metrics.get(key)


@pytest.mark.parametrize("loss, kl, verdict", [
    ((138.8, 139.1), (7.39, 7.4), HOLDS),  # what two seeds of the real runs gave
    ((155.0, 160.0), (7.39, 7.4), UNKNOWN),
    ((172.5, 172.0), (17.1, 17.0), FAILS),
    ((138.8, 139.1), (5.1, 5.2), FAILS),
])  # fmt: skip
def test_mnist_is_judged_by_its_own_baseline(loss, kl, verdict):
    vae = {seed: {"loss/total": t, "loss/kl": k} for seed, (t, k) in enumerate([(163.0, 5.23), (163.8, 5.06)])}
    vlt = {seed: {"loss/total": t, "loss/kl": k} for seed, (t, k) in enumerate(zip(loss, kl, strict=True))}
    runs = {
        name: {seed: Digits(name, seed, metrics) for seed, metrics in by_seed.items()}
        for name, by_seed in {"mnist_vae": vae, "mnist_vlt": vlt}.items()
    }
    assert CLAIMS[-1].judge(ComparableRuns({}, runs)).verdict == verdict


def test_runs_of_another_setting_are_judged_apart(right, copy):
    for exp in ("baseline", "vlt_random"):
        for seed in (0, 1):
            options = (f"+exp={exp}", f"seed={seed}", "trainer.max_epochs=60")
            world.make(copy, *options, metrics=world.numbers(seed), mu=world.informed(seed), volumes=world.blobs(seed))
    first, second = judge(find([copy]))
    assert "16 epochs" in first.setting and "60 epochs" in second.setting
    assert first.to_json()["claims"] == judge(find([right]))[0].to_json()["claims"]
    assert second.judged[0].why == "missing run: vlt_zero"


def test_another_variant_of_an_experiment_does_not_stand_for_it(copy):
    for seed in (0, 1):
        options = ("+exp=evil_twin_permuted", f"seed={seed}", "encoder.width=8")
        world.make(copy, *options, metrics=world.numbers(seed), mu=world.informed(seed), volumes=world.blobs(seed))
    assert verdicts(copy)["C2"].verdict == HOLDS


def test_a_folder_without_cryo_em_runs_has_no_verdict(tmp_path):
    world.make(tmp_path, "+exp=baseline", metrics=None)
    found = verdicts(tmp_path)
    assert {judged.verdict for judged in found.values()} == {UNKNOWN}


def test_turned_and_scaled_latents_are_the_same_latents(tmp_path):
    mu = world.informed(0)
    a = look(world.make(tmp_path, "seed=0", metrics={}, mu=mu, volumes=world.blobs(0)))
    turned = 3 * mu @ np.linalg.qr(world.ignorant(0)[:8])[0] + 5
    b = look(world.make(tmp_path, "seed=1", metrics={}, mu=turned, volumes=world.blobs(0)))
    assert similarity.overlap(a, b) == pytest.approx(1, abs=1e-3)
    assert similarity.cka(a, b) == pytest.approx(1, abs=1e-3)
    assert similarity.displacement(a, b) == pytest.approx(0, abs=1e-3)
    assert similarity.rank(a, b) == pytest.approx(0, abs=1e-3)
    assert similarity.volumes(a, b) > similarity.volumes_by_chance(a, b) + 0.01
    assert similarity.overlap_by_chance(a, b) == pytest.approx(12 / 239, abs=0.02)
    assert similarity.cka_by_chance(a, b) < 0.1


@pytest.mark.slow
def test_volumes_are_decoded_of_many_particles_where_there_are_weights(tmp_path, monkeypatch):
    first = tiny(tmp_path, "+exp=baseline").folder
    other = tmp_path / "other"
    shutil.copytree(first, other)
    equal = (8 - 1) / 16  # the area between equal volumes of 16 px
    assert similarity.volumes(look(first), look(other)) == pytest.approx(equal)
    assert len(similarity._decoded(first)) == 24  # all of the few particles
    assert similarity.volumes_error(look(first), look(other)) == pytest.approx(0, abs=1e-6)
    shutil.rmtree(other / "checkpoints")
    similarity._decoded.cache_clear()
    assert similarity.volumes(look(first), look(other)) == pytest.approx(equal)  # of the six that are stored


def test_too_close_to_call_is_said(copy):
    finding = next(f for f in verdicts(copy)["C8"].findings if f.error)
    close = replace(finding, error=10.0).decided(finding.threshold, True, "")
    assert close.verdict == UNKNOWN and "too close" in close.why


def test_two_runs_of_one_seed_are_not_compared(right):
    (evidence,) = group(find([right]))
    assert len(evidence.similarity("baseline", "baseline", similarity.cka)) == 1
    assert len(evidence.similarity("vlt_zero", "baseline", similarity.cka)) == 2  # not 4: seeds 0-1 and 1-0


def test_the_file_and_the_table_hold_every_claim_with_its_numbers(copy, capsys):
    change(copy, "vlt_zero", **{"latents/knn_class_accuracy": 0.58})
    assert main([str(copy)]) == 0
    (written,) = json.loads((copy / "claims.json").read_text())
    assert [claim["claim"] for claim in written["claims"]] == [f"C{i}" for i in range(1, 13)]
    finding = next(f for f in written["claims"][0]["findings"] if f["verdict"] == FAILS)
    assert finding["values"] == [0.58, 0.58] and finding["yardstick"] == [0.75, 0.755]
    assert finding["threshold"] == pytest.approx(0.25 + 0.8 * (0.7525 - 0.25))
    (found,) = judge(find([copy]))
    table = markdown(found)
    assert table.count("\n") == 14
    assert "| C1 |" in table
    assert "vlt_zero: knn class accuracy 0.58 / 0.58 (baseline 0.75 / 0.755), holds if ≥ 0.652" in table
    printed = capsys.readouterr().out
    assert "does not hold" in printed and in_words(found.judged[0].findings[6]) in printed


def test_no_runs_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
