"""The report page in a real browser: on a phone and on a desk, in daylight and in the dark."""

from __future__ import annotations

import pytest
from browser import browser, found
from report_pages import HOSTILE, grown, refuted, renamed
from test_report_page import DEEPER, WIDER

from ckgrow.reports.page.composition import page

pytestmark = pytest.mark.skipif(
    found() is None, reason="no Chromium here (Debian: apt-get install chromium)"
)

PHONE = (360, 740)
DESK = (1400, 900)

OVERFLOWING = """
[...document.querySelectorAll('body *')]
  .filter(each => !each.closest('.scroll') && !each.closest('pre') && !each.closest('svg *'))
  .filter(each => each.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(each => each.outerHTML.slice(0, 80))
"""

# WCAG 2.1, 1.4.3: relative luminance, and the ratio of text to what it stands on.
FAINT = """
(() => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = rgb => rgb.slice(0, 3)
    .map(value => value / 255)
    .map(value => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const ground = each => {
    for (; each; each = each.parentElement) {
      const colour = parts(getComputedStyle(each).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const words = each => [...each.childNodes].some(
    node => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
  return [...document.querySelectorAll('body *:not(title)')].filter(words).map(each => {
    const style = getComputedStyle(each);
    const ink = parts(each.closest('svg') ? style.fill : style.color);
    const [high, low] = [light(ink), light(ground(each))].sort((a, b) => b - a);
    return [(high + 0.05) / (low + 0.05), each.outerHTML.slice(0, 80)];
  }).filter(([ratio]) => ratio < 4.5);
})()
"""

BOTTOM = (
    "Math.max(...[...document.querySelectorAll('{}')].map(e => e.getBoundingClientRect().bottom))"
)


@pytest.fixture(scope="module")
def tab():
    with browser(found()) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Files by name: a widened, a deepened, a broken one, and one of hostile names."""
    folder = tmp_path_factory.mktemp("pages")
    wider, deeper = folder / "wider", folder / "deeper"
    for each in (wider, deeper):
        each.mkdir()
    mlp, convnet = grown(wider, "mlp", WIDER), grown(deeper, "convnet", DEEPER)
    made = {
        "mlp": mlp,
        "convnet": convnet,
        "broken": refuted(convnet),
        "hostile": renamed(mlp, HOSTILE),
    }
    paths = {name: folder / f"{name}.html" for name in made}
    for name, each in made.items():
        paths[name].write_text(page(each), encoding="utf-8")
    return paths


NAMES = ("mlp", "convnet", "broken", "hostile")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_page_renders_without_complaint_or_request(tab, pages, name, scheme):
    tab.open(pages[name], *DESK, scheme)
    assert tab.complaints == []
    asked = [each for each in tab.requests if not each.startswith("data:image/png;base64,")]
    assert asked == [pages[name].as_uri()]
    assert tab.evaluate("document.body.innerText.includes('student')")
    assert tab.evaluate("[...document.querySelectorAll('svg')].every(e => e.clientHeight > 0)")
    # data: pictures that do not decode are an error event, which a page without script cannot hear
    sizes = "[...document.querySelectorAll('image')].map(e => e.getBBox().width)"
    assert all(width > 0 for width in tab.evaluate(sizes))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_overflows_on_a_phone(tab, pages, name):
    tab.open(pages[name], *PHONE)
    assert tab.evaluate("innerWidth") == PHONE[0]
    assert tab.evaluate(OVERFLOWING) == []
    tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert tab.evaluate(OVERFLOWING) == []
    assert tab.evaluate("document.documentElement.scrollWidth") == PHONE[0]


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("name", ["mlp", "broken"])
def test_verdict_is_on_the_first_screen(tab, pages, name, size):
    tab.open(pages[name], *size)
    for part in ("h1", ".reason", ".tile"):
        assert tab.evaluate(BOTTOM.format(part)) <= size[1], part


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["convnet", "broken"])
def test_text_stands_out(tab, pages, name, scheme):
    tab.open(pages[name], *DESK, scheme)
    tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert tab.evaluate(FAINT) == []


def test_dark_is_dark(tab, pages):
    grounds = []
    for scheme in ("light", "dark"):
        tab.open(pages["mlp"], *DESK, scheme)
        grounds.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(251, 251, 250)", "rgb(20, 23, 27)"]


def test_cells_are_as_large_on_both_sides(tab, pages):
    for size in (PHONE, DESK):
        tab.open(pages["mlp"], *size)
        drawn = tab.evaluate(
            "[...document.querySelectorAll('.maps')].map(maps => "
            "[...maps.querySelectorAll('image')].map(e => e.getBoundingClientRect().width))"
        )
        # 2.weight has 48 columns before and 72 after, 4.weight 32 and 48
        assert [after / before for before, after in drawn] == pytest.approx([1.5, 1.5], rel=0.02)


def test_these_tests_see_what_they_look_for(tab, tmp_path):
    """A page that breaks every rule is found out."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><body style='background: #fff'><h1 style='color: #ccc'>faint</h1>"
        "<div style='width: 900px'>wide</div><script>console.error('no')</script>"
        "<img src='http://example.invalid/picture.png'>"
    )
    tab.open(bad, *PHONE)
    assert any("no" in each for each in tab.complaints)
    assert "http://example.invalid/picture.png" in tab.requests
    assert any("wide" in each for each in tab.evaluate(OVERFLOWING)) or (
        tab.evaluate("innerWidth") > PHONE[0]
    )
    assert any("faint" in each for _, each in tab.evaluate(FAINT))


def test_policy_of_the_page_stops_what_gets_in(tab, tmp_path, pages):
    """Even markup that got through could neither run nor fetch anything."""
    source = pages["mlp"].read_text(encoding="utf-8")
    inside = (
        "<script>document.title = 'owned'</script><img src='http://example.invalid/picture.png'>"
        "</body>"
    )
    spoilt = tmp_path / "spoilt.html"
    spoilt.write_text(source.replace("</body>", inside), encoding="utf-8")
    tab.open(spoilt, *DESK)
    assert tab.evaluate("document.title") != "owned"
    assert len(tab.complaints) == 2
    assert all("Content Security Policy" in each for each in tab.complaints)
