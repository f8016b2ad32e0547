"""The page in a browser: headless Chromium, driven by Playwright."""

import contextlib
import http.server
import shutil
import threading
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from sfpp.runtime.events import Event
from sfpp.runtime.model import SelfTestState
from sfpp.runtime.viewer import Limits, ViewerUpdate
from tests.runtime.viewer.looking import PALETTE, POSE, Viewer, model_shown

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
SIZE_HW = (180, 960)
TOKEN = "a-token-of-the-test-0123456789"
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Opens pages, each in a context of its own unless one is given, and fails if one of them complained."""
    complaints, contexts = [], []

    def opening(url, *, context=None, **options):
        if context is None:
            context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
            contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        page.goto(url)
        return page

    opening.complaints = complaints
    yield opening
    for context in contexts:
        context.close()
    assert complaints == []


@contextlib.contextmanager
def showing(viewer, *, sources=("front",), people=None, every_s=0.03, labels_age_ms=40.0):
    """Within the block a pipeline runs: three columns of classes on a frame whose grey rises and falls."""
    labels = np.repeat(np.repeat(np.arange(3, dtype=np.uint8), SIZE_HW[1] // 3)[None], SIZE_HW[0], axis=0)
    stop = threading.Event()

    def show():
        index = 0
        while not stop.wait(every_s):
            for number, source in enumerate(sources):
                image = np.full((*SIZE_HW, 3), 60 * (number + 1) + index % 20, np.uint8)
                content = {"labels": labels, "shares": {"road": 0.5, "sky": 0.3, "car": 0.0}}
                if people is not None:
                    content = {
                        "people": people,
                        "draw": lambda each: cv2.circle(each.copy(), (480, 90), 60, (0, 0, 255), -1),
                    }
                viewer.show(
                    ViewerUpdate(
                        source=source,
                        index=index,
                        image_bgr=image,
                        stages_ms={"decode": 5.0, "infer": 20.0 + index % 10},
                        age_ms=40.0,
                        labels_age_ms=labels_age_ms,
                        frames_per_second=1 / every_s,
                        **content,
                    )
                )
            index += 1

    thread = threading.Thread(target=show)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def running(viewer):
    with showing(viewer):
        yield viewer


def frame(page):
    return int(page.get_attribute("#picture", "data-frame") or -1)


def wait_for_frames(page, count=3):
    # By asking again and again: the page's policy forbids what Playwright would watch it with.
    page.wait_for_selector("#picture[data-frame]")
    first = frame(page)
    wait_until(page, lambda: frame(page) >= first + count)


def pixel(page, column):
    """The color in the middle of a class's column, as (R, G, B)."""
    script = """column => {
        const canvas = document.getElementById("picture");
        const x = Math.round(canvas.width * (column + 0.5) / 3), y = Math.round(canvas.height / 4);
        return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data].slice(0, 3);
    }"""
    return page.evaluate(script, column)


def colored(page, column):
    return max(pixel(page, column)) - min(pixel(page, column)) > 30


def wait_until(page, condition):
    for _ in range(200):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it did not come about")


def test_the_picture_moves_and_says_so(running, open_page):
    page = open_page(running.url)
    wait_for_frames(page)
    greys = set()
    for _ in range(8):
        greys.add(tuple(pixel(page, 0)))
        wait_for_frames(page)
    assert len(greys) > 3
    assert page.inner_text("#state-text") == "Live"
    assert page.title() == "front · sfpp viewer"
    assert "960\u00d7180" in page.inner_text("#frame")


@pytest.mark.parametrize(
    ("state", "tone", "text"),
    [
        (SelfTestState("passed", 0.9, "90%"), "good", "Self-test passed"),
        (SelfTestState("failed", 0.51969, "51.97% of the labels"), "bad", "Self-test failed: 52.0 %"),
        (SelfTestState("failed", detail="out of luck"), "bad", "Self-test failed"),
        (SelfTestState("damaged"), "bad", "Self-test damaged"),
        (SelfTestState("not carried"), "wait", "No self-test"),
        (SelfTestState("off"), "wait", "Self-test off"),
    ],
)
def test_the_page_says_how_the_self_test_stands(open_page, state, tone, text):
    with Viewer(model_shown(self_test=state), port=0) as viewer, showing(viewer):
        page = open_page(viewer.url)
        wait_for_frames(page)
        assert page.inner_text("#self-test") == text
        assert page.get_attribute("#self-test", "data-tone") == tone
        assert page.get_attribute("#self-test", "title") == state.detail


@pytest.mark.parametrize(("labels_age_ms", "text"), [(40.0, ""), (None, ""), (212.5, "labels 213 ms")])
def test_the_age_of_labels_is_shown_where_it_differs(viewer, open_page, labels_age_ms, text):
    with showing(viewer, labels_age_ms=labels_age_ms):
        page = open_page(viewer.url)
        wait_until(page, lambda: page.text_content("#age-value") == "40")
        assert page.text_content("#labels-age") == text
        assert page.is_visible("#labels-age") == bool(text)


def test_switches_change_the_picture_of_this_page_alone(running, open_page):
    first = open_page(running.url)
    second = open_page(running.url, context=first.context)
    for page in (first, second):
        wait_for_frames(page)
    first.click("label[title=sky]")
    wait_until(first, lambda: not colored(first, 1))
    assert colored(first, 0)
    assert colored(second, 1)
    first.click("text=All off")
    wait_until(first, lambda: not colored(first, 0))
    first.click("text=All on")
    wait_until(first, lambda: colored(first, 0) and colored(first, 1))
    assert first.inner_text("#legend li:nth-child(2) .share") == "30.0 %"


def test_views_and_opacity_change_the_picture(running, open_page):
    page = open_page(running.url)
    wait_for_frames(page)
    page.check("input[value=original]", force=True)
    wait_until(page, lambda: not colored(page, 0))
    page.check("input[value=mask]", force=True)
    wait_until(page, lambda: np.allclose(pixel(page, 0), PALETTE[0], atol=12))
    page.check("input[value=overlay]", force=True)
    page.fill("#opacity", "0")
    wait_until(page, lambda: not colored(page, 0))
    page.fill("#opacity", "100")
    wait_until(page, lambda: np.allclose(pixel(page, 2), PALETTE[2], atol=12))


def test_the_keyboard_does_it_all(running, open_page):
    page = open_page(running.url)
    wait_for_frames(page)
    page.keyboard.press("1")
    wait_until(page, lambda: not colored(page, 0))
    page.keyboard.press("3")
    wait_until(page, lambda: np.allclose(pixel(page, 0), PALETTE[0], atol=12))
    page.keyboard.press("2")
    assert page.input_value("#opacity") == "50"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    assert page.input_value("#opacity") == "55"
    page.keyboard.press("?")
    assert page.is_visible("#help-dialog")
    page.keyboard.press("Escape")
    assert not page.is_visible("#help-dialog")
    theme = page.evaluate("document.documentElement.dataset.theme")
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.theme") != theme
    with page.expect_download() as download:
        page.keyboard.press("s")
    assert download.value.suggested_filename.endswith("-overlay.png")
    page.click("#pause")
    assert page.inner_text("#pause-text") == "Continue"
    page.keyboard.press("Space")  # not a second click on the button that was clicked last, and not none
    assert page.inner_text("#pause-text") == "Pause"
    page.focus("#snapshot")
    with page.expect_download():
        page.keyboard.press("Space")
    assert page.inner_text("#pause-text") == "Pause"


def test_pause_holds_the_frame_and_still_changes_the_view(running, open_page):
    page = open_page(running.url)
    wait_for_frames(page)
    page.keyboard.press("Space")
    page.wait_for_timeout(500)
    held = frame(page)
    assert page.inner_text("#state-text") == "Paused"
    page.keyboard.press("1")
    wait_until(page, lambda: not colored(page, 0))
    assert frame(page) == held
    with page.expect_download() as download:
        page.keyboard.press("s")
    assert download.value.suggested_filename == f"front-{held:06d}-original.png"
    page.keyboard.press("Space")
    wait_for_frames(page)
    assert frame(page) > held
    assert page.inner_text("#state-text") == "Live"


def test_a_snapshot_has_the_frames_own_size(running, open_page, tmp_path):
    page = open_page(running.url + "?width=320")
    wait_for_frames(page)
    assert page.evaluate("document.getElementById('picture').width") == 320
    page.select_option("#format", "jpeg")
    with page.expect_download() as download:
        page.click("#snapshot")
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert path.suffix == ".jpg"
    assert cv2.imread(str(path)).shape == (*SIZE_HW, 3)
    page.wait_for_selector(f"#toast.shown:has-text('{path.name}')")


def inked(page, chart):
    """How much of a chart is drawn on, 0..1."""
    return page.evaluate(
        """id => {
            const canvas = document.getElementById(id);
            const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            let inked = 0;
            for (let at = 3; at < data.length; at += 4) inked += data[at] > 20;
            return inked / (data.length / 4);
        }""",
        chart,
    )


def test_charts_fill_and_a_later_page_has_the_past_too(running, open_page):
    page = open_page(running.url)
    wait_for_frames(page)
    before = {chart: inked(page, chart) for chart in ("latency", "age", "rate")}
    page.wait_for_timeout(4000)
    after = {chart: inked(page, chart) for chart in before}
    assert all(after[chart] > before[chart] + 0.01 for chart in before)
    assert page.inner_text("#stages li:first-child") == "decode 5"
    assert page.get_attribute("#age", "aria-label") == "Frame age of the last minute: 40 ms"
    assert page.inner_text("#age-reading") == "40"
    later = open_page(running.url)
    wait_for_frames(later)
    wait_until(later, lambda: inked(later, "latency") > 0.9 * after["latency"])


def test_sources_are_chosen_by_click_and_key(viewer, open_page):
    with showing(viewer, sources=("front", "rear")):
        page = open_page(viewer.url)
        wait_for_frames(page)
        page.keyboard.press("1")
        wait_until(page, lambda: not colored(page, 0) and pixel(page, 0)[0] < 100)
        page.click("button:has-text('rear')")
        wait_until(page, lambda: pixel(page, 0)[0] > 100)
        wait_until(page, lambda: page.get_attribute("button:has-text('rear')", "aria-pressed") == "true")
        page.keyboard.press("n")
        wait_until(page, lambda: pixel(page, 0)[0] < 100)


def test_events_are_listed_as_text(running, open_page):
    page = open_page(running.url)
    running.event(Event("lost", "front", "<b>no</b> frame for 5 s"))
    running.event(Event("dropped", "front", "too old", count=3))
    page.wait_for_selector("#events li:has-text('<b>no</b> frame')")
    page.wait_for_selector(".tag:has-text('dropped 3')")
    running.event(Event("dropped", "front", "too old", count=4))
    page.wait_for_selector(".tag:has-text('dropped 7')")
    assert page.locator("#events li").count() == 2


def test_settings_outlive_a_reload_in_their_tab(running, open_page):
    page = open_page(running.url)
    wait_for_frames(page)
    page.keyboard.press("3")
    page.click("label[title=car]")
    page.wait_for_timeout(200)
    page.reload()
    wait_for_frames(page)
    assert page.is_checked("input[value=mask]")
    assert not page.is_checked("label[title=car] input")
    other = open_page(running.url, context=page.context)
    wait_for_frames(other)
    assert other.is_checked("input[value=overlay]")


def test_a_page_comes_back_by_itself(open_page):
    viewer = Viewer(model_shown(), port=0)
    with viewer, showing(viewer):
        page = open_page(viewer.url)
        wait_for_frames(page)
    page.wait_for_selector("#state-text:has-text('Ended')")
    page.wait_for_selector("#state-text:has-text('Connection lost')")
    again = Viewer(model_shown(), port=urlsplit(viewer.url).port)
    with again, showing(again):
        page.wait_for_selector("#state-text:has-text('Live')")
        wait_for_frames(page)
        page.goto("about:blank")
    # Chromium itself complains of connections that are refused.
    assert all("ERR_CONNECTION_REFUSED" in text for text in open_page.complaints)
    open_page.complaints.clear()


def test_a_pipeline_that_stands_still_is_told_from_one_that_runs(open_viewer, open_page):
    viewer = open_viewer(limits=Limits(fresh_s=0.5))
    page = open_page(viewer.url)
    page.wait_for_selector("#note:has-text('Waiting for the first frame')")
    with showing(viewer):
        wait_for_frames(page)
        page.wait_for_selector("#note", state="hidden")
    page.wait_for_selector("#note:has-text('No new frame for')")
    assert page.inner_text("#state-text") == "Still"


def test_a_run_is_stopped_only_after_a_question(open_viewer, open_page):
    asked = []
    viewer = open_viewer(on_stop=lambda: asked.append("stop"))
    with showing(viewer):
        page = open_page(viewer.url)
        wait_for_frames(page)
        page.click("#stop")
        page.keyboard.press("Escape")
        page.click("#stop")
        page.click("#stop-dialog button:has-text('Keep running')")
        assert asked == []
        page.click("#stop")
        page.click("#stop-dialog button:has-text('Stop run')")
        wait_until(page, lambda: asked == ["stop"])


def test_a_pose_has_skeletons_and_no_switches(open_viewer, open_page):
    viewer = open_viewer(model_shown(POSE))
    with showing(viewer, people=2):
        page = open_page(viewer.url)
        wait_for_frames(page)
        assert "2 people" in page.inner_text("#frame")
        assert page.inner_text("#mask-name") == "Skeletons"
        assert page.locator("#legend input:enabled").count() == 0
        assert page.input_value("#opacity") == "100"
        page.keyboard.press("1")
        wait_until(page, lambda: not colored(page, 1))
        page.keyboard.press("3")
        wait_until(page, lambda: pixel(page, 1)[0] > 200)


def test_the_token_is_demanded_and_leaves_the_address(open_viewer, open_page, browser):
    viewer = open_viewer(token=TOKEN)
    with showing(viewer):
        origin = viewer.url.partition("?")[0]
        stranger = browser.new_context()
        for address in (origin, f"{origin}?token=wrong"):
            assert stranger.new_page().goto(address).status == 401
        stranger.close()
        page = open_page(viewer.url)
        wait_for_frames(page)
        assert page.url == origin
        assert TOKEN not in page.evaluate(
            "document.cookie + performance.getEntries().map((each) => each.name).slice(1)"
        )
        page.reload()
        wait_for_frames(page)


class Foreign(http.server.BaseHTTPRequestHandler):
    """A page of another site, with a link to the viewer."""

    link = ""

    def do_GET(self):
        if self.path == "/favicon.ico":  # which browsers ask for as they please
            self.send_response(204)
            self.end_headers()
            return
        body = f'<!doctype html><title>foreign</title><a href="{self.link}">look</a>'.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def foreign_site(link):
    """Serve a page under a name that is another site than 127.0.0.1."""
    handler = type("Linking", (Foreign,), {"link": link})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def test_a_foreign_page_can_link_to_the_viewer_with_its_token(open_viewer, open_page):
    viewer = open_viewer(token=TOKEN)
    with showing(viewer), foreign_site(viewer.url) as address:
        page = open_page(address)
        page.click("text=look")
        wait_for_frames(page)
        assert page.url == viewer.url.partition("?")[0]


def test_a_foreign_page_cannot_look(running, open_page):
    with foreign_site(running.url) as address:
        page = open_page(address)
        stream = running.url.replace("http", "ws") + "stream"
        outcome = page.evaluate(
            """address => new Promise((done) => {
                const socket = new WebSocket(address);
                socket.onopen = () => done("open");
                socket.onerror = () => done("refused");
            })""",
            stream,
        )
        assert outcome == "refused"
        loaded = page.evaluate(
            """address => new Promise((done) => {
                const image = new Image();
                image.onload = () => done("loaded");
                image.onerror = () => done("refused");
                image.src = address;
            })""",
            f"{running.url}snapshot",
        )
        assert loaded == "refused"
        page.goto("about:blank")
    assert open_page.complaints  # Chromium says that both were refused
    open_page.complaints.clear()


def shifts(page):
    """How much of the page has moved by itself, as browsers measure it."""
    return page.evaluate(
        """() => new Promise((done) => {
            let sum = 0;
            new PerformanceObserver((list) => {
                for (const entry of list.getEntries()) sum += entry.value;
            }).observe({ type: "layout-shift", buffered: true });
            setTimeout(() => done(sum), 300);
        })"""
    )


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("outcome", ["passed", "failed"])
def test_nothing_moves_by_itself_nor_sticks_out(open_viewer, open_page, options, outcome):
    viewer = open_viewer(model_shown(self_test=SelfTestState(outcome, 0.5)))
    with showing(viewer):
        page = open_page(viewer.url, **options)
        wait_for_frames(page, 20)
        viewer.event(Event("note", "front", "a long-word-" * 30))
        page.wait_for_selector("#events li")
        assert shifts(page) < 0.01
        width, inner = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width <= inner
        # A failure is seen everywhere; what is as it should be has no room on a phone.
        assert page.is_visible("#self-test") is (outcome == "failed" or options == {})


def test_fingers_have_room_on_a_phone(running, open_page):
    page = open_page(running.url, **PHONE)
    wait_for_frames(page)
    for element in page.locator("button:visible, select:visible, .legend li:visible, .segments label").all():
        box = element.bounding_box()
        assert box["height"] >= 44, element.inner_text()
        assert box["width"] >= 44, element.inner_text()


def test_everything_has_a_name_for_those_who_do_not_see_it(running, open_page):
    page = open_page(running.url)
    wait_for_frames(page)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, canvas, dialog, [role]")].filter((each) => {
            const labelled = document.getElementById(each.getAttribute("aria-labelledby"));
            const texts = [each.getAttribute("aria-label"), labelled?.textContent, each.textContent,
                ...[...(each.labels ?? [])].map((label) => label.textContent)];
            return !texts.some((text) => text?.trim()) && each.getAttribute("role") !== "status";
        }).map((each) => each.outerHTML)"""
    )
    assert nameless == []
