"""A page is well-formed, holds nothing foreign, and shows what it was given."""

import math
import re

import cv2
import numpy as np
import pytest

from sfpp.runtime.errors import MediaError, SfppError
from sfpp.tooling.page import (
    Bar,
    Cell,
    Column,
    Html,
    Page,
    Row,
    Tile,
    bars,
    bullets,
    chip,
    code,
    element,
    facts,
    folded,
    gallery,
    headline,
    histogram,
    joined,
    notice,
    paragraph,
    picture,
    table,
    tiles,
)
from tests.tooling.page_reader import assert_sound, picture_in, read_page

HOSTILE = '</td><script>alert("1")</script>\'&amp;'


def blocks(text):
    """One of every block, with this text wherever text can be."""
    image = np.zeros((4, 6, 3), np.uint8)
    return [
        paragraph(text, code(text), chip(text), tone="muted"),
        headline(text, text),
        notice(text, text, tone="warn"),
        tiles([Tile(text, text, text), Tile(text, text)]),
        facts([(text, text), (text, code(text))]),
        bullets([text]),
        folded(text, paragraph(text)),
        table(
            [Column(text, text, text), Column(text, text, text, group=text, best="highest")],
            [[text, Cell(text, value=1.0, tone="bad", note=text)], Row([text, Cell("x", value=0.5)], strong=True)],
            caption=text,
            tones={"bad": text},
        ),
        gallery([picture(image, text, alt=text)]),
        bars([Bar(text, 1.0, text, more=(text,), tag=text)], caption=text, label=text, value=text, more=(text,)),
        histogram(np.array([4, 1]), largest=2.0, threshold=1.0, title=text, caption=text, alt=text),
    ]


def filled(text):
    page = Page(text, subtitle=text, footer=text)
    page.add(*blocks(text))
    for _ in range(4):
        section = page.section(text)
        section.add(*blocks(text))
        section.section(text).add(paragraph(text))
    return page


@pytest.mark.parametrize("text", ["plain", HOSTILE])
def test_a_page_is_sound_whatever_is_written_into_it(text):
    page = assert_sound(filled(text).html())
    assert page.all("title")[0].text == text
    assert {heading.text for tag in ("h1", "h2", "h3") for heading in page.all(tag)} == {text}
    assert {each.attributes["alt"] for each in page.all("img")} == {text}


def test_every_block_shows_its_text_as_it_is():
    for block in blocks(HOSTILE):
        assert HOSTILE in read_page(block.text).text
        assert "<script" not in block.text


def test_markup_passes_and_text_is_escaped():
    made = element("p", "a < b", Html("<b>c</b>"), aria_label='"', class_="x", title=None, width=1.5, height=2.0)
    assert made.text == '<p aria-label="&quot;" class="x" width="1.5" height="2">a &lt; b<b>c</b></p>'
    assert joined(["<", Html("<br>")], separator=" & ").text == "&lt; &amp; <br>"


def test_a_name_can_be_broken_where_its_parts_meet():
    assert code("/a/b.c<d").text == "<code>/a/<wbr>b.c&lt;d</code>"


def test_nothing_can_be_fetched_or_run():
    page = read_page(filled("x").html())
    (policy,) = [each for each in page.all("meta") if each.attributes.get("http-equiv") == "Content-Security-Policy"]
    assert policy.attributes["content"].startswith("default-src 'none';")


def test_contents_lead_to_every_section_of_a_long_page():
    long, short = Page("long"), Page("short")
    for name in ("a", "b", "c", "d"):
        long.section(name)
    short.section("a")
    page = read_page(long.html())
    targets = {section.attributes["id"]: section.all("h2")[0].text for section in page.all("section")}
    assert [targets[link.attributes["href"][1:]] for link in page.all("a")] == ["a", "b", "c", "d"]
    assert not read_page(short.html()).all("nav")


def test_blocks_and_sections_keep_their_order():
    page = Page("title")
    page.add(paragraph("first"))
    section = page.section("one")
    section.add(paragraph("second"))
    section.section("below").add(paragraph("third"))
    section.add(paragraph("fourth"))
    text = re.sub(r"\s+", " ", read_page(page.html()).all("main")[0].text)
    assert text == "title first one second below third fourth"


def test_a_page_is_written_whole_and_the_same_each_time(tmp_path):
    for name in ("a.html", "b.html"):
        filled("\u00e9").write(tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == filled("\u00e9").html()
    with pytest.raises(SfppError, match="does not exist"):
        filled("x").write(tmp_path / "nowhere" / "a.html")


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
    figure = read_page(picture(image, "caption", alt="alt", encoding="png").text)
    shown = figure.all("img")[0]
    np.testing.assert_array_equal(picture_in(shown.attributes["src"]), image)
    assert (shown.attributes["width"], shown.attributes["height"]) == ("31", "20")
    assert figure.all("figcaption")[0].text == "caption"


@pytest.mark.skipif(
    not hasattr(cv2, "IMWRITE_JPEG_SAMPLING_FACTOR"), reason="OpenCV before 4.6 halves the resolution of color"
)
def test_a_jpeg_keeps_the_color_of_single_pixels():
    image = np.full((32, 32, 3), 60, np.uint8)
    image[10, 11] = (66, 228, 240)
    decoded = picture_in(read_page(picture(image, "", alt="a").text).all("img")[0].attributes["src"])
    assert decoded.shape == image.shape
    blue, green, red = decoded[10, 11].astype(int)
    assert min(green, red) > blue + 60


def test_a_large_picture_is_shrunk():
    image = np.zeros((100, 300), np.uint8)  # grey, as any picture of OpenCV's may be
    decoded = picture_in(read_page(picture(image, "", alt="a", longest_side=150).text).all("img")[0].attributes["src"])
    assert decoded.shape == (50, 150, 3)


def test_what_is_no_picture_is_refused():
    with pytest.raises(MediaError, match="expected"):
        picture(np.zeros((4, 4, 3), np.float32), "", alt="a")


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
    return read_page(histogram(np.asarray(counts), **options).text)


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
