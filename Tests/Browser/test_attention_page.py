"""The attention page in a browser: what it shows under the pointer and the keys equals the weights."""

import re

import numpy as np
import pytest
from swiftattn.pictures import AttentionMap, Place, save_html

LAYERS, HEADS = 5, 4
TOKENS = (
    " The",
    " cat",
    " sat",
    "ting",
    ".\n",
    " <img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "\u202e",
)
SIZE = len(TOKENS)


def weights(causal, size=SIZE):
    scores = np.random.default_rng(3).normal(0, 2, (LAYERS, HEADS, size, size))
    if causal:
        scores = np.where(np.tri(size, dtype=bool), scores, -np.inf)
    powers = np.exp(scores)
    return (powers / powers.sum(-1, keepdims=True)).astype(np.float32)


@pytest.fixture(params=[True, False], ids=["causal", "bidirectional"])
def page(request, browser, tmp_path):
    """The browser at the page, and the page's weights."""
    picture = AttentionMap(TOKENS, weights(request.param), request.param, Place(1, 2, 5), "tests & <b>more</b>")
    save_html(tmp_path / "page.html", picture)
    browser.prefer("light")
    browser.open(tmp_path / "page.html", "document.querySelector('#looks li')")
    browser.move(2, 2)
    yield browser, picture
    assert browser.log == []
    assert browser.requests == [(tmp_path / "page.html").as_uri()]


def shown_list(browser, name):
    rows = browser.value(
        f"[...document.querySelectorAll('#{name} li')].map((li) => [...li.children].map((e) => e.textContent))"
    )
    return [(label, float(number)) for label, _, number in rows]


def expected_list(picture, values, candidates):
    best = sorted(candidates, key=lambda n: (-values[n], n))[:8]
    return [(picture.labels[n], values[n]) for n in best]


def assert_shows(browser, picture, layer, head, token):
    """The lists and the text's colours are those of this head and token."""
    matrix = picture.weights[layer].mean(0) if head == HEADS else picture.weights[layer, head]
    everyone = range(SIZE)
    visible = {
        "looks": [n for n in everyone if not picture.causal or n <= token],
        "looked": [n for n in everyone if not picture.causal or n >= token],
    }
    for name, values in (("looks", matrix[token]), ("looked", matrix[:, token])):
        got, wanted = shown_list(browser, name), expected_list(picture, values, visible[name])
        assert [label for label, _ in got] == [label for label, _ in wanted]
        assert [number for _, number in got] == pytest.approx([weight for _, weight in wanted], abs=5.2e-4)
    chips = browser.value(
        "[...document.querySelectorAll('#text [role=option]')].map((e) => [e.textContent,"
        " e.style.getPropertyValue('--to'), e.style.getPropertyValue('--from'), e.classList.contains('shown')])"
    )
    assert [chip[0] for chip in chips] == picture.labels
    assert [float(chip[1]) ** 2 for chip in chips] == pytest.approx(list(matrix[token]), abs=2e-3)
    assert [float(chip[2]) ** 2 for chip in chips] == pytest.approx(list(matrix[:, token]), abs=2e-3)
    assert [n for n, chip in enumerate(chips) if chip[3]] == [token]
    name = "mean of its heads" if head == HEADS else f"head {head + 1}"
    assert browser.value("document.getElementById('head-name').textContent") == f"Layer {layer + 1}, {name}"


def chip(n):
    breaks = sum(token.endswith("\n") for token in TOKENS[:n])  # each is an element of its own
    return f"#text > :nth-child({n + 1 + breaks})"


def button(layer, head):
    return f"#heads [role=row]:nth-child({layer + 2}) button:nth-of-type({head + 1})"


def test_hovering_shows_and_clicking_keeps(page):
    browser, picture = page
    assert_shows(browser, picture, *picture.start)
    for token in (0, 3, SIZE - 1):
        browser.move(*browser.centre(chip(token)))
        assert_shows(browser, picture, 1, 2, token)
    browser.move(*browser.centre(button(4, 0)))
    assert_shows(browser, picture, 4, 0, 5)
    browser.move(2, 2)
    assert_shows(browser, picture, *picture.start)
    browser.click(*browser.centre(chip(3)))
    browser.click(*browser.centre(button(0, HEADS)))
    browser.move(2, 2)
    assert_shows(browser, picture, 0, HEADS, 3)
    browser.click(*browser.centre("#looks li:nth-child(2)"))
    browser.move(2, 2)
    mean = picture.weights[0].mean(0)[3][: 4 if picture.causal else SIZE]
    assert_shows(browser, picture, 0, HEADS, int(np.argsort(-mean, kind="stable")[1]))


def test_keys_move_heads_and_tokens(page):
    browser, picture = page
    browser.value("document.getElementById('theme').focus()")
    browser.press("Tab")
    browser.press("ArrowDown"), browser.press("ArrowLeft")
    assert_shows(browser, picture, 2, 1, 5)
    browser.press("End"), browser.press("ArrowRight")
    assert_shows(browser, picture, 2, HEADS, 5)
    browser.press("Home")
    for _ in range(LAYERS):
        browser.press("ArrowUp")
    assert_shows(browser, picture, 0, 0, 5)
    browser.press("Tab")
    browser.press("ArrowRight"), browser.press("ArrowRight"), browser.press("ArrowRight")
    assert_shows(browser, picture, 0, 0, SIZE - 1)
    browser.press("Home")
    assert_shows(browser, picture, 0, 0, 0)
    assert browser.value("document.activeElement.getAttribute('role')") == "option"


def test_every_cell_of_the_matrix_has_its_colour_and_its_number(page):
    browser, picture = page
    browser.value("document.getElementById('matrix').scrollIntoView()")
    x, y, width, height = browser.value(
        "(() => { const b = document.getElementById('matrix').getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; })()"
    )
    layer, head, _ = picture.start
    pixels = browser.value(
        "(() => { const c = document.getElementById('matrix');"
        " return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; })()"
    )
    for query in range(SIZE):
        for key in range(SIZE):
            # Cells are 36 pixels wide here, and end 2 before the canvas does.
            across, down = width - 2 - (SIZE - key) * 36, height - 2 - (SIZE - query) * 36
            browser.move(x + across + 18, y + down + 18)
            readout = browser.value("document.getElementById('readout').textContent")
            start = 4 * int((down + 6) * width + across + 6)
            pixel = pixels[start : start + 4]
            if picture.causal and key > query:
                assert readout == "Rows look at columns."
                assert pixel[3] == 0
                continue
            weight = picture.weights[layer, head, query, key]
            labels = picture.labels
            number = float(
                re.fullmatch(re.escape(f"“{labels[query]}” looks at “{labels[key]}”: ") + r"(\d\.\d{3})", readout)[1]
            )
            assert number == pytest.approx(weight, abs=5.2e-4)
            assert pixel[:3] == pytest.approx(heat(weight), abs=3)
    browser.click(x + width - 2 - (SIZE - 1.5) * 36, y + height - 2 - 4.5 * 36)
    browser.move(2, 2)
    assert_shows(browser, picture, layer, head, SIZE - 5)


LIGHT = ((0xEF, 0xF3, 0xF9), (0x6F, 0xA3, 0xEA), (0x0B, 0x2C, 0x6B))


def heat(weight):
    """The light theme's colour of a weight: its square root between three stops."""
    place = 2 * float(weight) ** 0.5
    low, high = (LIGHT[0], LIGHT[1]) if place < 1 else (LIGHT[1], LIGHT[2])
    part = place if place < 1 else place - 1
    return [a + (b - a) * part for a, b in zip(low, high)]


def test_thumbnails_hold_the_whole_head(page):
    browser, picture = page
    for layer, head in ((0, 0), (4, 3), (2, HEADS)):
        pixels = browser.value(
            f"[...document.querySelector({button(layer, head)!r}).firstChild.getContext('2d')"
            f".getImageData(0, 0, {SIZE}, {SIZE}).data]"
        )
        matrix = picture.weights[layer].mean(0) if head == HEADS else picture.weights[layer, head]
        for n, weight in enumerate(matrix.ravel()):
            red, green, blue, alpha = pixels[4 * n : 4 * n + 4]
            assert alpha == (0 if picture.causal and n % SIZE > n // SIZE else 255)
            assert not alpha or [red, green, blue] == pytest.approx(heat(weight), abs=3)


def test_themes(page):
    browser, picture = page

    def background():
        return browser.value("getComputedStyle(document.body).backgroundColor")

    light = background()
    browser.prefer("dark")
    browser.until("document.documentElement.dataset.theme === 'dark'")
    dark = background()
    assert dark != light
    browser.press("t")
    assert background() == light
    browser.prefer("light")
    browser.click(*browser.centre("#theme"))
    assert background() == dark
    browser.move(2, 2)
    assert_shows(browser, picture, *picture.start)


def test_text_is_readable_at_any_weight_in_both_themes(page):
    browser, _ = page

    def colour(expression):
        text = browser.value(f"getComputedStyle(document.documentElement).getPropertyValue('{expression}').trim()")
        return np.array([int(text[n : n + 2], 16) for n in (1, 3, 5)]) / 255

    def luminance(rgb):
        return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)

    for _ in range(2):
        fill = float(browser.value("getComputedStyle(document.documentElement).getPropertyValue('--fill')"))
        strongest = fill * colour("--look") + (1 - fill) * colour("--card")
        for text, ground in (("--ink", strongest), ("--soft", colour("--card")), ("--soft", colour("--paper"))):
            bright, dim = sorted((luminance(colour(text)), luminance(ground)), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= 4.5, (text, ground)
        browser.press("t")


def test_the_address_keeps_the_place(browser, tmp_path):
    picture = AttentionMap(TOKENS, weights(True), True, Place(0, 0, 0))
    save_html(tmp_path / "page.html", picture)
    browser.open(tmp_path / "page.html", "document.querySelector('#looks li')")
    browser.click(*browser.centre(chip(4)))
    browser.click(*browser.centre(button(3, 1)))
    browser.move(2, 2)
    assert browser.value("location.hash") == "#layer=4&head=2&token=5"
    ready = "document.querySelector('#looks li')"
    browser.open(tmp_path / "page.html", ready, place="#layer=4&head=2&token=5")
    assert_shows(browser, picture, 3, 1, 4)
    for hostile in ("#layer=0&head=99&token=-3", "#layer=x&token=1e99", "#%%%"):
        browser.open(tmp_path / "page.html", ready, place=hostile)
        assert_shows(browser, picture, *picture.start)
    assert browser.log == []


def test_the_page_runs_no_other_script_and_loads_nothing(browser, tmp_path):
    save_html(tmp_path / "page.html", AttentionMap(TOKENS, weights(False), False, Place(0, 0, 0)))
    browser.open(tmp_path / "page.html", "document.querySelector('#looks li')")
    browser.value(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.broken = true';"
        " document.body.append(s); document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.broken = true\">'); })()"
    )
    refused = browser.value("fetch('https://example.org/').then(() => false, () => true)")
    assert refused and not browser.value("window.broken")
    assert browser.requests == [(tmp_path / "page.html").as_uri()]


@pytest.mark.parametrize("size", [1, 2, 200])
@pytest.mark.parametrize("width", [360, 1440])
def test_any_length_fits_any_width(browser, tmp_path, size, width):
    picture = AttentionMap([f" token{n}" for n in range(size)], weights(True, size), True, Place(0, 0, size - 1))
    save_html(tmp_path / "page.html", picture)
    browser.open(tmp_path / "page.html", "document.querySelector('#looks li')", width=width)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("document.querySelectorAll('#text [role=option]').length") == size
    assert len(shown_list(browser, "looks")) == min(8, size)
    assert browser.log == []
