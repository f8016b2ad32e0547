"""A page is well-formed, holds nothing foreign, and shows what it was given."""

import math
import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from sfpp.runtime.errors import MediaError
from sfpp.tooling import page
from sfpp.tooling.page import Bar, Cell, Column, Outline, Row, inline_image, render
from tests.tooling.page_reader import assert_sound, picture_in, read_page

HOSTILE = '</td><script>alert("1")</script>\'&amp;'
PAGE = """
{% extends "base.html" %}
{% import "macros.html" as ui with context %}
{% block head %}
{{ ui.headline(text, text) }}
{% call ui.notice(text, "warn", text) %}{{ ui.bullets([text]) }}{% endcall %}
{% endblock %}
{% block sections %}
{% for _ in range(sections) %}
{% call ui.section(text) %}
  <p>{{ ui.code(text) }}{{ ui.chip(text) }}</p>
  <dl>{{ ui.fact(text, text) }}{{ ui.fact(text, text, is_code=true) }}</dl>
  {% call ui.tiles() %}{{ ui.tile(text, text, text) }}{{ ui.tile(text, text) }}{% endcall %}{{ ui.bullets([text]) }}
  {% call ui.folded(text) %}<p>{{ text }}</p>{% endcall %}
  {{ ui.table(columns, rows, text, {"bad": text}) }}
  {{ ui.picture(image, [text, text], text) }}
  {{ ui.bars(bars, text, text, text, (text,)) }}
  {{ ui.histogram(counts, 2.0, 1.0, text, text, text) }}
  {% call ui.subsection(text) %}<p>{{ text }}</p>{% endcall %}
{% endcall %}
{% endfor %}
{% endblock %}
"""


def filled(folder, text, sections=4):
    """A page with one of every block, with this text wherever text can be."""
    (folder / "every.html").write_text(PAGE, encoding="utf-8")
    return render(
        folder / "every.html",
        title=text,
        subtitle=text,
        footer=text,
        text=text,
        sections=sections,
        columns=[Column(text, text, text), Column(text, text, text, group=text, best="highest")],
        rows=[
            [text, Cell(text, value=1.0, tone="bad", note=[text], chip=text, names=[text] * 9)],
            Row([text, Cell("x", value=0.5)], strong=True),
        ],
        image=np.zeros((4, 6, 3), np.uint8),
        bars=[Bar(text, 1.0, text, more=(text,), tag=text), Bar(text, 1.0, text, more=(text,), is_code=True)],
        counts=np.array([4, 1]),
    )


def blocks():
    """The macros, to be called from Python."""
    return page._environment().get_template("macros.html").make_module({"outline": Outline()})


def table(columns, rows, *, caption, tones=None):
    return SimpleNamespace(text=str(blocks().table(columns, rows, caption, tones or {})))


def bars(entries, **options):
    return SimpleNamespace(text=str(blocks().bars(entries, **options)))


@pytest.mark.parametrize("text", ["plain", HOSTILE])
def test_a_page_is_sound_whatever_is_written_into_it(tmp_path, text):
    page = assert_sound(filled(tmp_path, text))
    assert page.all("title")[0].text == text
    assert {heading.text for tag in ("h1", "h2", "h3") for heading in page.all(tag)} == {text}
    assert {each.attributes["alt"] for each in page.all("img")} == {text}


def test_every_block_shows_its_text_as_it_is(tmp_path):
    written = filled(tmp_path, HOSTILE)
    assert "<script" not in written
    page = read_page(written)
    for tag, count in (("h2", 4), ("h3", 4), ("caption", 8), ("dt", 16), ("summary", 8), ("figcaption", 8), ("li", 17)):
        found = page.all(tag)
        assert len(found) == count, tag
        shown = [each for each in found if HOSTILE in each.text or "more" in each.text or "best of" in each.text]
        assert shown == found, tag


def test_what_is_no_text_is_replaced(tmp_path):
    assert "a\ufffdb\ufffdc" in read_page(filled(tmp_path, "a\x00b\u202ec", sections=1)).all("h1")[0].text


def test_a_name_can_be_broken_where_its_parts_meet():
    assert str(blocks().code("/a/b.c<d")) == "<code>/a/<wbr>b.c&lt;d</code>"


def test_of_many_names_most_are_folded_away():
    shown = read_page(str(blocks().codes([f"n{index}" for index in range(9)])))
    assert [each.text for each in shown.all("code")] == [f"n{index}" for index in range(9)]
    assert shown.all("summary")[0].text == "and 3 more"
    assert len(shown.all("details")[0].all("code")) == 3
    assert not read_page(str(blocks().codes(["a", "b"]))).all("details")


def test_nothing_can_be_fetched_or_run(tmp_path):
    page = read_page(filled(tmp_path, "x"))
    (policy,) = [each for each in page.all("meta") if each.attributes.get("http-equiv") == "Content-Security-Policy"]
    assert policy.attributes["content"].startswith("default-src 'none';")


def test_contents_lead_to_every_section_of_a_long_page(tmp_path):
    page = read_page(filled(tmp_path, "x"))
    anchors = [section.attributes["id"] for section in page.all("section") if section.all("h2")]
    assert [link.attributes["href"][1:] for link in page.all("a")] == anchors
    assert len(set(anchors)) == 4
    below = [section.attributes["id"] for section in page.all("section") if not section.all("h2")]
    assert below == [f"{anchor}-1" for anchor in anchors]
    assert not read_page(filled(tmp_path, "x", sections=3)).all("nav")


def test_blocks_and_sections_keep_their_order(tmp_path):
    (tmp_path / "order.html").write_text(
        """
        {% extends "base.html" %}
        {% import "macros.html" as ui with context %}
        {% block head %}<p>first</p>{% endblock %}
        {% block sections %}
        {% call ui.section("one") %}
          <p>second,
            on two lines</p>
          {% call ui.subsection("below") %}<p>third</p>{% endcall %}
          <p>fourth</p>
        {% endcall %}
        {% endblock %}
        """
    )
    main = read_page(render(tmp_path / "order.html", title="title")).all("main")[0]
    shown = [each.text for each in main.all() if each.tag in ("h1", "h2", "h3", "p")]
    assert shown == ["title", "first", "one", "second, on two lines", "below", "third", "fourth"]


def test_a_page_is_the_same_each_time(tmp_path):
    assert filled(tmp_path, "\u00e9") == filled(tmp_path, "\u00e9")


def rows_of(block):
    body = read_page(block.text).all("tbody")[0]
    return [[cell for cell in row.children if cell.tag in ("th", "td")] for row in body.all("tr")]


def test_a_table_names_its_rows_and_sets_figures_to_the_right():
    block = table([Column("name"), Column("n", "ms"), Column("why", numeric=False)], [["a", "1", "x"]], caption="c")
    ((name, figure, reason),) = rows_of(block)
    assert (name.tag, name.attributes["scope"], name.classes) == ("th", "row", set())
    assert "number" in figure.classes
    assert "number" not in reason.classes
    titles = read_page(block.text).all("thead")[0].all("th")
    assert [title.text for title in titles] == ["name", "nms", "why"]
    assert ["number" in title.classes for title in titles] == [False, True, False]


@pytest.mark.parametrize(
    ("best", "values", "starred"),
    [
        ("highest", [("1", 1.0), ("3", 3.0), ("2", 2.0)], [False, True, False]),
        ("lowest", [("1", 1.0), ("3", 3.0), ("2", 2.0)], [True, False, False]),
        ("highest", [("3.0", 3.001), ("3.0", 3.002), ("2.0", 2.0)], [True, True, False]),  # look equal
        ("highest", [("1", 1.0), ("1", 1.0), ("1", 1.0)], [False, False, False]),
        ("lowest", [("-", math.nan), ("3", 3.0), ("2", 2.0)], [False, False, True]),
        ("lowest", [("1", None), ("3", 3.0), ("2", 2.0)], [False, False, True]),
        ("", [("1", 1.0), ("3", 3.0), ("2", 2.0)], [False, False, False]),
    ],
)
def test_the_best_figure_of_a_column_is_starred(best, values, starred):
    columns = [Column("name"), Column("n", best=best)]
    block = table(columns, [["x", Cell(text, value=value)] for text, value in values], caption="c")
    assert ["\u2605" in row[1].text for row in rows_of(block)] == starred
    assert ["best" in row[1].classes for row in rows_of(block)] == starred
    assert ("best of its column" in block.text) == any(starred)


def test_a_tone_has_a_sign_and_a_meaning_and_only_used_ones_are_explained():
    tones = {"good": "fine", "warn": "hm", "bad": "loses"}
    rows = [["x", Cell("1", tone="bad")], ["y", Cell("2", tone="good")], ["z", Cell("3", tone="muted")]]
    block = table([Column("name"), Column("n", meaning="a number")], rows, caption="c", tones=tones)
    cells = [row[1] for row in rows_of(block)]
    assert [cell.classes for cell in cells] == [{"number", "bad"}, {"number", "good"}, {"number", "muted"}]
    assert [cell.text for cell in cells] == ["\u27171", "\u27132", "3"]
    assert cells[0].all("span")[0].attributes["aria-label"] == "loses"
    legend = [item.text for item in read_page(block.text).all("li")]
    assert legend == ["\u2713fine", "\u2717loses", "n: a number"]


def test_groups_span_their_columns():
    columns = [Column("name"), *(Column("t", group=group, meaning="time") for group in ("a", "a", "b"))]
    block = read_page(table(columns, [["x", "1", "2", "3"]], caption="c").text)
    above = block.all("thead")[0].all("tr")[0].children
    assert [(cell.text, cell.attributes["colspan"]) for cell in above] == [("", "1"), ("a", "2"), ("b", "1")]
    assert [item.text for item in block.all("li")] == ["t: time"]


def test_a_tables_rows_can_be_set_off():
    block = read_page(
        table([Column("n")], [Row(["a"], strong=True), Row(["b"], follows=True), ["c"]], caption="c").text
    )
    assert [row.classes for row in block.all("tbody")[0].all("tr")] == [{"strong"}, {"follows"}, set()]


def test_a_picture_comes_back_as_it_was():
    image = np.random.default_rng(0).integers(0, 256, (20, 31, 3), np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 3)  # JPEG keeps no noise
    assert np.abs(picture_in(inline_image(image)["source"]).astype(int) - image).max() < 12
    figure = read_page(str(blocks().picture(image, ["caption", "below"], "alt")))
    (tag,) = figure.all("img")
    assert (tag.attributes["width"], tag.attributes["height"], tag.attributes["alt"]) == ("31", "20", "alt")
    assert figure.all("figcaption")[0].text == "captionbelow"


@pytest.mark.skipif(
    not hasattr(cv2, "IMWRITE_JPEG_SAMPLING_FACTOR"), reason="OpenCV before 4.6 halves the resolution of color"
)
def test_a_jpeg_keeps_the_color_of_single_pixels():
    image = np.full((32, 32, 3), 60, np.uint8)
    image[10, 11] = (66, 228, 240)
    decoded = picture_in(inline_image(image)["source"])
    assert decoded.shape == image.shape
    blue, green, red = decoded[10, 11].astype(int)
    assert min(green, red) > blue + 60


def test_a_large_picture_is_shrunk(monkeypatch):
    image = np.zeros((100, 300), np.uint8)  # grey, as any picture of OpenCV's may be
    monkeypatch.setattr(page, "_LONGEST_SIDE", 150)
    decoded = picture_in(inline_image(image)["source"])
    assert decoded.shape == (50, 150, 3)


def test_what_is_no_picture_is_refused():
    with pytest.raises(MediaError, match="expected"):
        inline_image(np.zeros((4, 4, 3), np.float32))


def widths_of(block):
    return [float(rect.attributes["width"].rstrip("%")) for rect in read_page(block.text).all("rect")]


def test_bars_are_as_long_as_their_values():
    entries = [Bar("a", 4.0, "4 s"), Bar("b", 1.0, "1 s", tag="kept"), Bar("c", 0.0, "0 s"), Bar("d", -1.0, "-1 s")]
    block = bars(entries, caption="c", label="part", value="time")
    assert widths_of(block) == [100, 25, 0, 0]
    assert widths_of(bars(entries, caption="c", label="part", value="time", largest=8.0)) == [50, 12.5, 0, 0]
    rows = rows_of(block)
    assert [row[0].text for row in rows] == ["a", "b kept", "c", "d"]
    assert [row[2].text for row in rows] == ["4 s", "1 s", "0 s", "-1 s"]
    assert [bool(row[1].all("rect", of_class="tagged")) for row in rows] == [False, True, False, False]


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_bar_without_a_figure_has_no_length(value):
    entries = [Bar("a", value, "-"), Bar("b", 2.0, "2")]
    assert widths_of(bars(entries, caption="c", label="l", value="v", largest=value)) == [0, 100]
    assert widths_of(bars(entries[:1], caption="c", label="l", value="v")) == [0]


def drawn(counts, **options):
    options = {"largest": 1.0, "threshold": 0.5, "title": "t", "caption": "c", "alt": "a", **options}
    return read_page(str(blocks().histogram(np.asarray(counts), **options)))


def steps_of(figure, of_class):
    """Return (left, right, height) of each step, in the drawing's pixels."""
    number = r"([\d.]+)"
    step = re.compile(f"M{number} {number}V{number}H{number}V{number}Z")
    found = []
    for path in figure.all("path", of_class=of_class):
        assert not step.sub("", path.attributes["d"])
        for left, ground, top, right, end in step.findall(path.attributes["d"]):
            assert ground == end
            found.append((float(left), float(right), float(ground) - float(top)))
    return found


def test_a_histograms_heights_are_logarithms_of_its_counts():
    heights = [height for _, _, height in steps_of(drawn([1, 10, 0, 100], threshold=1.0), "kept")]
    expected = [math.log(count / 0.5) / math.log(100 / 0.5) * heights[-1] for count in (1, 10, 100)]
    np.testing.assert_allclose(heights, expected, atol=0.02)
    assert heights[0] > 5  # a single value is seen


def test_a_histograms_steps_lie_where_their_values_do():
    figure = drawn([5, 5, 0, 5], largest=8.0, threshold=4.0)
    axis = figure.all("line", of_class="axis")[0].attributes
    start, end = float(axis["x1"]), float(axis["x2"])
    places = [(left, right) for left, right, _ in steps_of(figure, "kept")]
    quarter = (end - start) / 4
    np.testing.assert_allclose(places, [(start, start + quarter), (start + quarter, start + 2 * quarter)], atol=0.02)
    ((left, right, _),) = steps_of(figure, "clipped")
    np.testing.assert_allclose((left, right), (start + 3 * quarter, end), atol=0.02)
    line = figure.all("line", of_class="threshold")[0].attributes
    assert float(line["x1"]) == float(line["x2"]) == pytest.approx(start + 2 * quarter, abs=0.02)
    texts = [text.text for text in figure.all("text")]
    assert {"0", "8", "1", "threshold 4"} <= set(texts)


def test_many_bins_are_drawn_as_few_steps_of_their_sum():
    counts = np.zeros(2048, np.int64)
    counts[[3, 4, 2047]] = (7, 13, 20)
    steps = steps_of(drawn(counts, threshold=1.0), "kept")
    assert len(steps) == 2
    assert steps[0][2] == pytest.approx(steps[1][2])  # 7 + 13 = 20
    assert len(steps_of(drawn(np.ones(2048, np.int64), threshold=1.0), "kept")) <= 140


@pytest.mark.parametrize("most", [1, 9, 10, 3_000_000, 10**13])
def test_a_histogram_counts_in_powers_of_ten(most):
    texts = [text.text for text in drawn([most, 1], threshold=1.0).all("text")]
    counts = {f"{base}{suffix}" for suffix in ("", "k", "M", "G", "T") for base in (1, 10, 100)}
    ticks = [text for text in texts if text in counts][: len(texts) - 3]  # but for 0, the largest and the threshold
    assert ticks[0] == "1"
    assert len(ticks) <= 4


@pytest.mark.parametrize(
    ("counts", "largest"), [([], 1.0), ([0, 0], 1.0), ([1], 0.0), ([1], math.nan), ([1], math.inf)]
)
def test_a_histogram_of_nothing_says_so(counts, largest):
    figure = drawn(np.asarray(counts, np.int64), largest=largest)
    assert "no values to draw" in figure.text
    assert not figure.all("svg")


@pytest.mark.parametrize("threshold", [0.0, math.nan, 2.0])
def test_a_threshold_off_the_axis_has_no_line(threshold):
    figure = drawn([1, 2], threshold=threshold)
    assert not figure.all("line", of_class="threshold")
    assert "nan" not in figure.text
