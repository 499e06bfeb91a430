"""Volumes turn in a page that needs no network, whatever they are called."""

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from experiments.volumes import interactive
from experiments.volumes.files import write_mrc
from experiments.volumes.isosurface import mesh
from experiments.volumes.ray_caster import view_of_box
from tests.test_surfaces import blob

EVIL = "</script><script>alert('ran')</script><img src=x onerror=alert(1)>&\"'"


@pytest.fixture(scope="module")
def meshes() -> dict:
    return {"large": mesh(blob(radius_px=9), 0.5, 3000), EVIL: mesh(blob(6, 2, -3, radius_px=4), 0.5, 3000)}


class Elements(HTMLParser):
    """Counts elements and keeps what the scripts hold."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script" and self.cdata_elem == "script":
            self.scripts.append(data)


def content(fragment: str) -> dict:
    return json.loads("".join(Elements(fragment).scripts))


def unpacked(surface: dict, names: str) -> np.ndarray:
    return np.stack([np.frombuffer(base64.b64decode(surface[n]["bdata"]), surface[n]["dtype"]) for n in names], axis=1)


def test_the_page_holds_every_mesh_to_sixteen_bits(meshes):
    shown = content(interactive.fragment(meshes, "a"))
    reach = max(np.abs(vertices).max() for vertices, _ in meshes.values())
    assert [each["name"] for each in shown["meshes"]] == list(meshes)
    for each, (vertices, faces) in zip(shown["meshes"], meshes.values(), strict=True):
        places = unpacked(each["surface"], "xyz") / shown["range"][1] * reach
        np.testing.assert_allclose(places, vertices, atol=reach / 60_000)
        np.testing.assert_array_equal(unpacked(each["surface"], "ijk"), faces)


def test_a_volume_of_the_default_size_takes_less_than_150_kb():
    surface = mesh(blob(radius_px=24, box_px=64), 0.5, interactive.MAX_FACES)
    assert len(surface[1]) > 0.5 * interactive.MAX_FACES
    assert len(interactive.fragment({"v": surface}, "a")) < 100_000


def test_more_vertices_than_sixteen_bits_count_are_still_told_apart():
    rng = np.random.default_rng(0)
    vertices, faces = rng.normal(size=(70_000, 3)), rng.integers(0, 70_000, (10, 3))
    shown = content(interactive.fragment({"v": (vertices, faces)}, "a"))
    np.testing.assert_array_equal(unpacked(shown["meshes"][0]["surface"], "ijk"), faces)


def test_names_and_ids_are_text_and_never_markup(meshes):
    swapped = dict(reversed(meshes.items()))
    for text in (
        interactive.fragment(meshes, EVIL),
        interactive.fragment(swapped, "a"),
        interactive.fragment({}, EVIL),
    ):
        tags = [tag for tag, _ in Elements(text).tags]
        assert "img" not in tags
        assert tags.count("script") == (0 if "There are no volumes" in text else 1)
    assert Elements(interactive.fragment(meshes, EVIL)).tags[0][1]["id"] == EVIL
    page = Elements(interactive.page(swapped, EVIL))
    assert [tag for tag, _ in page.tags].count("script") == 3
    assert "img" not in [tag for tag, _ in page.tags]


def test_the_page_asks_nothing_of_any_server(meshes):
    page = interactive.page(meshes, "volumes")
    for _, attributes in Elements(page).tags:
        assert not attributes.get("src")
        assert (attributes.get("href") or "data:").startswith("data:")
    assert "http" not in interactive.turntable_js()


def test_a_fragment_holds_no_code(meshes):
    """A page's security policy admits its scripts by their hash; a fragment's script is data."""
    scripts = [attributes for tag, attributes in Elements(interactive.fragment(meshes, "a")).tags if tag == "script"]
    assert scripts == [{"type": "application/json"}]
    assert not re.search(r"\son\w+=", interactive.fragment({"v": meshes["large"]}, "a"))


def test_it_begins_with_the_view_of_the_pictures(meshes):
    camera = content(interactive.fragment(meshes, "a"))["camera"]
    eye, up = (np.array([camera[name][axis] for axis in "xyz"]) for name in ("eye", "up"))
    _, down, near = view_of_box()
    np.testing.assert_allclose(eye / np.linalg.norm(eye), near, atol=1e-12)
    np.testing.assert_allclose(up, -down, atol=1e-12)


def test_a_volume_without_surface_and_no_volumes_make_no_error():
    empty = (np.empty((0, 3)), np.empty((0, 3)))
    assert content(interactive.fragment({"empty": empty}, "a"))["meshes"][0]["name"] == "empty"
    assert "There are no volumes" in interactive.fragment({}, "a")


def test_the_command_writes_a_page_of_a_folder_of_volumes(tmp_path, capsys):
    write_mrc(tmp_path / "run" / "volumes" / "first_1.mrc", blob(), 1.0)
    write_mrc(tmp_path / "run" / "volumes" / "first_2.mrc", blob(3, 3, 3), 1.0)
    assert interactive.main([str(tmp_path / "run")]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path == tmp_path / "run" / "turntable.html"
    page = path.read_text(encoding="utf-8")
    assert '"name":"first_1"' in page
    assert '"name":"first_2"' in page


def test_the_command_fails_with_one_line(tmp_path, capsys):
    assert interactive.main([str(tmp_path)]) == 1
    (tmp_path / "broken.mrc").write_bytes(b"half")
    assert interactive.main([str(tmp_path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "no .mrc volumes here" in lines[0]
    assert "broken.mrc: 4 bytes, too short for an MRC header" in lines[1]
    assert not (tmp_path / "turntable.html").exists()


@pytest.mark.slow
def test_in_a_browser_volumes_turn_and_the_camera_stays(meshes, tmp_path):
    api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here")
    (tmp_path / "page.html").write_text(interactive.page(meshes, EVIL), encoding="utf-8")
    software = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=software)
        tab = browser.new_page(viewport={"width": 390, "height": 700})
        errors, requests = [], []
        tab.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto((tmp_path / "page.html").as_uri())
        tab.wait_for_selector(".turntable canvas")
        plot = tab.locator(".turntable > div")
        camera = "document.querySelector('.turntable > div')._fullLayout.scene._scene.getCamera().eye"

        def seen() -> bytes:
            tab.wait_for_timeout(700)
            return plot.screenshot()

        at_first, box = seen(), plot.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        tab.mouse.move(x, y)
        tab.mouse.down()
        tab.mouse.move(x + 80, y + 30, steps=4)
        tab.mouse.up()
        turned = seen()
        eye = tab.evaluate(camera)
        tab.click("button[aria-label='next volume']")
        second = seen()
        assert turned != at_first
        assert second != turned
        assert tab.evaluate(camera) == pytest.approx(eye, abs=1e-6)
        assert tab.locator("output").inner_text() == EVIL
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert errors == []
        assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
        browser.close()
