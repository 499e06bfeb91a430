"""The report: all that runs have to show, on one page that needs nothing else, in a real browser."""

import base64
import csv
import io
import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from PIL import Image

from experiments.claims.comparable_runs import group
from experiments.claims.paper_experiments import IN_THE_PAPER, about
from experiments.configuration.compose import CONF_DIR
from experiments.report import captions, pictures, surfaces
from experiments.report.__main__ import main
from experiments.runs.folders import FINISHED, find, look
from tests import world
from tests.browser import DESKTOP, PHONE, chromium, opened

HOSTILE = "<img src=x onerror=alert(1)>"
FAILURE = "2026-01-01 10:00:09,000 ERROR failed: loss became <b>nan</b>; lower lr\nTraceback\nInputError: x\n"


def picture(path, text_colour=(179, 0, 27)):
    path.parent.mkdir(exist_ok=True)
    image = Image.effect_noise((960, 750), 60).convert("RGB")
    image.paste(text_colour, (40, 40, 300, 90))
    image.save(path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The paper's grid, and beside it what can go wrong with runs."""
    few = ("baseline", "vlt_zero", "evil_twin_noise", "shift_1px")
    others = tuple(name for name in IN_THE_PAPER if name not in few)
    root = world.paper_is_right(tmp_path_factory.mktemp("world") / "runs", without=others)
    for folder in root.glob("simulated/*/*"):
        if folder.parent.name != "baseline":
            shutil.rmtree(folder / "volumes")  # drawing them takes time
        name = "displaced_latents" if folder.parent.name in ("shift_1px", "rotate_90") else "latent_space"
        picture(folder / "figures" / f"{name}.png")
    world.make(root, "+exp=vlt_pretrained", metrics=None)
    failed = world.make(root, "+exp=vlt_permuted", metrics=None)
    (failed / "run.log").write_text(FAILURE)
    damaged = world.make(root, "+exp=vlt_random_clusters", metrics={})
    (damaged / "metrics.json").write_text("{")
    world.make(root, f"name='{HOSTILE}'", metrics={**world.numbers(0), HOSTILE: 1.0}, volumes=world.blobs(3))
    losses = {"loss": (0.56, 0.63, 0.59), "class_accuracy": (0.75, 0.33, 0.69)}
    numbers = {
        f"heldout/{quantity}_{of}": value
        for quantity, values in losses.items()
        for of, value in zip(("train", "encoder", "optimized"), values, strict=True)
    }
    world.make(root, "name=heldout", metrics={**world.numbers(0), **numbers, "heldout/amortization_gap": 0.0437})
    moved = {"amortization/displacement_ratio": 0.2577}
    world.make(root, "+exp=augmented_shift_1px", metrics=moved)
    return root


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    assert main([str(runs), "-o", str(path)]) == 0
    return path


class Links(HTMLParser):
    """What a page refers to, and the tags that it has."""

    def __init__(self, text):
        super().__init__()
        self.to, self.tags, self.ids, self.handlers = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.tags.append(tag)
        self.to += [value for name, value in named.items() if name in ("src", "href", "action", "data", "srcset")]
        self.ids += [named["id"]] if "id" in named else []
        self.handlers += [name for name in named if name.startswith("on")]


def test_the_page_holds_all_that_it_refers_to(report):
    links = Links(report.read_text())
    assert all(to.startswith(("data:", "#")) for to in links.to)
    assert {to[1:] for to in links.to if to.startswith("#")} <= set(links.ids)
    assert len(set(links.ids)) == len(links.ids)
    assert "link" not in links.tags and "iframe" not in links.tags


def test_claims_come_first_then_held_out_particles_then_the_grid(report):
    links = Links(report.read_text())
    order = [
        name for name in links.ids if name in ("claims", "held-out", "missing", "grid", "losses", "numbers", "runs")
    ]
    assert order == ["claims", "held-out", "missing", "grid", "losses", "numbers", "runs"]


def test_every_run_is_there_with_the_command_that_makes_it_again(runs, report):
    text = report.read_text()
    found = find([runs])
    assert text.count('<article class="run"') == len(found)
    assert "python run.py +exp=vlt_zero seed=1 precision=float32" in text


def test_what_is_missing_unfinished_failed_or_damaged_is_said(report):
    text = re.sub(r"\s+", " ", report.read_text())
    missing = text[text.index('<section id="missing">') : text.index('<section id="grid">')]
    assert "<code>vlt_random</code>, <code>evil_twin_permuted</code>, " in missing
    assert "5 of 16 epochs done" in missing
    assert "loss became &lt;b&gt;nan&lt;/b&gt;; lower lr" in missing
    assert "metrics.json: not valid JSON" in missing


def test_captions_tell_the_papers_result_from_what_was_found_here(report):
    text = re.sub(r"\s+", " ", report.read_text())
    grid = text[text.index('<section id="grid">') : text.index('<section id="losses">')]
    assert (
        "Paper: a zero table that is trained: as the baseline (Fig 21). Here: class accuracy 0.75 / 0.755 "
        "(baseline 0.75 / 0.755); hinge R2 0.45 / 0.47 (baseline 0.45 / 0.47); volume diversity 0.06 / 0.061 "
        "(baseline 0.06 / 0.061).<"
    ) in grid
    assert "Paper: 1 px to the right: z moves far (Fig 10). Here: displacement 0.72 / 0.73; neighbour rank" in grid
    own = text[text.index("+exp=vlt_zero seed=1") - 600 : text.index("+exp=vlt_zero seed=1")]
    assert "Paper: a zero table that is trained: as the baseline (Fig 21). Here: class accuracy 0.755 (base" in own


def test_a_caption_says_that_there_is_no_run_and_that_the_baseline_is_no_yardstick(tmp_path):
    aucs = {"volumes/per_image_fsc_auc": 0.3, "volumes/per_image_fsc_auc_of_mean": 0.4}
    world.make(tmp_path, "+exp=baseline", metrics=world.numbers(0) | aucs)
    world.make(tmp_path, "+exp=evil_twin_permuted", metrics=world.numbers(0, accuracy=0.7))
    unfinished = world.make(tmp_path, "+exp=vlt_random", metrics=None)
    (evidence,) = group(find([tmp_path]))
    caption = captions.of_experiment("evil_twin_permuted", evidence)
    assert caption.paper == "permuted twins, standard encoder: no clusters, volumes still differ (Fig 7)"
    assert caption.here.startswith("class accuracy 0.7 (baseline 0.75); ")
    assert caption.here.endswith("no better than the mean volume (FSC area 0.3 against 0.4, seed 0)")
    assert captions.of_run(look(unfinished), [evidence]).here == "not run yet"
    assert captions.of_experiment("pose_aware", evidence) is None


RESULTS = r"as the baseline|lost|moves far|less informative|still|same volumes|amortizes|too\.|lower|higher|hardly"


def test_what_an_experiments_file_says_is_what_is_done_and_no_result():
    names = [path.stem for path in (CONF_DIR / "exp").glob("*.yaml")]
    assert len(names) > 30 and all(about(name) for name in names)
    assert {name: about(name) for name in names if re.search(RESULTS, about(name))} == {}


def test_the_held_out_numbers_are_a_table(report):
    text = report.read_text()
    section = text[text.index('<section id="held-out">') : text.index('<section id="missing">')]
    cells = re.findall(r'<td class="number">([^<]*)</td>', section.partition('class="augmentation"')[0])
    assert cells == ["0.56", "0.75", "0.63", "0.33", "0.59", "0.69"]
    assert "amortization gap 0.0437" in section


def test_the_augmented_encoder_stands_beside_the_baseline(report):
    text = report.read_text()
    row = re.search(r"displacement of z, 1 px shift</th>(.*)</tr>", text)
    assert re.findall(r">([\d./ ]+)<", row[1]) == ["0.72 / 0.73", "0.2577"]


def test_what_users_name_is_text_and_never_markup(report):
    links = Links(report.read_text())
    assert "x" not in links.to and not links.handlers
    assert "&lt;img src=x onerror=alert(1)&gt;" in report.read_text()


def test_downloads_hold_the_runs_own_numbers(runs, report):
    found = dict(re.findall(r'href="data:text/csv;base64,([^"]*)" download="([^"]*)"', report.read_text()))
    files = {name: list(csv.DictReader(io.StringIO(base64.b64decode(data).decode()))) for data, name in found.items()}
    finished = [run for run in find([runs]) if run.status == FINISHED]
    assert len(files["metrics.csv"]) == len(finished)
    row = next(row for row in files["metrics.csv"] if (row["experiment"], row["seed"]) == ("vlt_zero", "1"))
    (folder,) = (run.folder for run in finished if run.folder.name == row["folder"])
    stored = json.loads((folder / "metrics.json").read_text())
    assert {key: float(row[key]) for key in stored} == stored
    epochs = [row for row in files["epochs.csv"] if (row["experiment"], row["seed"]) == ("vlt_zero", "1")]
    assert [float(row["loss/total"]) for row in epochs] == [2.0, 1.9, 1.8, 1.7, 1.6]
    assert {row["claim"] for row in files["claims.csv"]} == {f"C{i}" for i in range(1, 13)}
    assert any(row["experiment"] == f"{HOSTILE}" for row in files["metrics.csv"])


def test_a_formula_is_no_formula_in_a_spreadsheet():
    from experiments.report.contents import _csv

    assert _csv([{"experiment": "=HYPERLINK(1)", "x": -1.5}]) == b"experiment,x\n'=HYPERLINK(1),-1.5\n"


def test_a_picture_of_many_pixels_or_a_pipe_is_left_out_at_once(tmp_path):
    import os
    import time

    from PIL import Image

    Image.new("1", (13_000, 13_000)).save(tmp_path / "large.png")
    os.mkfifo(tmp_path / "pipe.png")
    Image.new("RGB", (40, 30)).save(tmp_path / "small.png")
    started = time.monotonic()
    found = pictures.encode_all(sorted(tmp_path.iterdir()))
    assert list(found) == [tmp_path / "small.png"]
    assert time.monotonic() - started < 2


def test_pictures_shrink_until_they_fit(tmp_path, monkeypatch):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        picture(path)
    large = pictures.encode_all(paths)
    monkeypatch.setattr(pictures, "BUDGET_BYTES", sum(len(p.uri) for p in large.values()) // 2)
    small = pictures.encode_all(paths)
    assert sum(len(p.uri) for p in small.values()) <= pictures.BUDGET_BYTES
    assert small[paths[0]].width_px < large[paths[0]].width_px == 960


def test_a_picture_that_is_none_is_left_out(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG no")
    assert pictures.encode_all([tmp_path / "a.png"]) == {}


@pytest.mark.parametrize("n_runs", [1, 40, 400])
def test_surfaces_keep_within_the_pages_size_however_many_runs_there_are(n_runs):
    n_faces, most = surfaces.allowance(n_runs, 6 * n_runs)
    assert surfaces.FACES_EACH[0] <= n_faces <= surfaces.FACES_EACH[1]
    assert most >= 1
    assert n_faces * min(most, 6) * n_runs <= max(surfaces.FACES, surfaces.FACES_EACH[0] * n_runs)


def test_a_page_of_unfinished_runs_alone_says_so(tmp_path):
    world.make(tmp_path / "runs", "+exp=baseline", metrics=None)
    assert main([str(tmp_path / "runs")]) == 0
    text = (tmp_path / "runs" / "report.html").read_text()
    assert "No run is finished yet." in text and "0 finished" in text


def test_without_runs_there_is_one_line_and_no_page(tmp_path, capsys):
    assert main([str(tmp_path), "-o", str(tmp_path / "report.html")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


# In the browser


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture(scope="module", params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def seen(request, browser, report):
    with opened(browser, report, request.param) as page:
        yield page


def test_the_page_complains_of_nothing_and_asks_for_nothing(seen):
    seen.page.wait_for_selector(".plot .main-svg")
    assert seen.complaints == [] and seen.requests == []


def test_every_figure_is_on_the_page(seen, runs):
    shown = seen.ask("[...document.images].map((i) => i.complete && i.naturalWidth > 0 && i.clientWidth > 0)")
    assert all(shown)
    figures = seen.ask("document.querySelectorAll('.figures img').length")
    assert figures == len(list(runs.rglob("figures/*.png")))
    volumes = seen.ask("document.querySelectorAll('.volumes img').length")
    assert volumes == len([path for path in runs.rglob("volumes/*.mrc") if (path.parents[1] / "metrics.json").exists()])


def test_nothing_sticks_out_sideways(seen):
    for script in ("document.querySelectorAll('details').forEach((d) => { d.open = true; })", "0"):
        seen.ask(script)
        wide, window = seen.ask("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= window
    assert seen.ask("document.querySelector('.sortable').parentElement.scrollWidth > innerWidth")  # it scrolls inside
    seen.ask("document.querySelectorAll('details').forEach((d) => { d.open = false; })")


def test_a_volume_turns_when_it_is_dragged(seen):
    seen.ask("document.querySelector('.turn').open = true")
    plot = seen.page.locator(".turntable > div").first
    plot.scroll_into_view_if_needed()  # the scene is made when it comes into sight
    seen.until("!!document.querySelector('.turntable > div')._fullLayout?.scene?._scene")
    camera = "document.querySelector('.turntable > div')._fullLayout.scene._scene.getCamera().eye"
    before, pixels = seen.ask(camera), plot.screenshot()
    assert colours(pixels) > 20  # a lit surface, and no blank canvas
    box = plot.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    seen.page.mouse.move(x, y)
    seen.page.mouse.down()
    seen.page.mouse.move(x + 90, y + 40, steps=4)
    seen.page.mouse.up()
    seen.page.wait_for_timeout(300)
    after = seen.ask(camera)
    assert max(abs(after[axis] - before[axis]) for axis in "xyz") > 0.1
    assert plot.screenshot() != pixels
    assert seen.complaints == []
    seen.ask("document.querySelector('.turn').open = false")


def colours(png):
    return len(Image.open(io.BytesIO(png)).convert("RGB").getcolors(1 << 20))


def column(seen, number):
    return seen.ask(
        "(n) => [...document.querySelector('.sortable').tBodies[0].rows].map((row) => row.cells[n].textContent)", number
    )


def test_a_click_on_a_columns_head_sorts_the_table(seen):
    heads = seen.ask("[...document.querySelectorAll('.sortable th button')].map((b) => b.title || b.textContent)")
    accuracy = heads.index("latents/knn_class_accuracy")
    button = seen.page.locator(".sortable thead button").nth(accuracy)
    for ascending in (True, False):
        button.click()
        values = column(seen, accuracy)
        numbers = [float(value) for value in values if value != "–"]
        assert numbers == sorted(numbers, reverse=not ascending)
        assert all(value == "–" for value in values[len(numbers) :])  # what is missing stays last
    seen.page.locator(".sortable thead button").first.click()
    names = [name for name in column(seen, 0) if name != HOSTILE]
    assert names == sorted(names) and len(set(names)) == 6


def test_losses_are_compared_by_hovering(seen):
    plot = seen.page.locator(".curves .plot").first
    plot.scroll_into_view_if_needed()
    area = plot.locator(".plotly .nsewdrag").first.bounding_box()
    seen.page.mouse.move(area["x"] + area["width"] * 0.5, area["y"] + area["height"] * 0.5, steps=3)
    seen.page.wait_for_selector(".hoverlayer text")
    told = seen.ask("document.querySelector('.hoverlayer').textContent")
    assert "1.8" in told and "seed" in told
    if seen.ask("innerWidth") > 1000:
        assert "vlt_zero · seed 1" in told and "evil_twin_noise · seed 0" in told


def test_the_buttons_choose_the_loss(seen):
    seen.page.locator("[data-loss='loss/kl']").first.click()
    assert seen.page.locator(".curves .plot").first.locator(".ytitle").text_content() == "KL (nats)"
    assert seen.ask("document.querySelector('.curves .plot').data[0].y.slice(0, 2)") == [10, 11]
    seen.page.locator("[data-loss='loss/total']").first.click()


def test_a_claim_opens_to_its_numbers(seen):
    seen.page.locator(".claim summary").first.click()
    assert seen.page.locator(".claim table").first.is_visible()
    assert "latents/knn_class_accuracy" in seen.page.locator(".claim table").first.text_content()


def test_no_script_but_the_pages_own_can_run(seen):
    seen.ask("window.ran = false; window.alert = () => { window.ran = true; }; 0")
    seen.ask("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=alert(1)>')")
    seen.page.wait_for_timeout(200)
    assert seen.ask("window.ran") is False
    seen.ask("document.body.lastElementChild.remove()")
    seen.complaints.clear()  # the refusal is one


@pytest.mark.slow
def test_real_runs_make_a_page(tmp_path, browser):
    from tests.tiny import tiny

    tiny(tmp_path, "+exp=shift_1px")  # and the baseline that it tests
    shutil.rmtree(tmp_path / "cache")  # a report is made from finished runs alone
    path = tmp_path / "report.html"
    assert main([str(tmp_path / "runs"), "-o", str(path)]) == 0
    with opened(browser, path, DESKTOP) as page:
        assert page.complaints == []
        assert page.ask("document.querySelectorAll('.figures img').length") == len(
            list(tmp_path.rglob("figures/*.png"))
        )
        assert page.ask("document.querySelectorAll('.volumes img').length") == 6 + 12
