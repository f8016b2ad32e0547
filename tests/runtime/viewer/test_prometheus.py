import re

import numpy as np
import pytest

from sfpp.runtime.events import Event
from sfpp.runtime.viewer import Limits
from sfpp.runtime.viewer.prometheus import metrics_text
from sfpp.runtime.viewer.store import Store
from tests.runtime.viewer.looking import ask, update

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)')
UNESCAPED = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


def parsed(text):
    """Read the text form strictly: {(name, ((label, value), ...)): number}, and {family: (type, help)}."""
    assert text.endswith("\n")
    samples, families, family = {}, {}, None
    for line in text.split("\n")[:-1]:
        if match := re.fullmatch(rf"# HELP ({NAME}) (.+)", line):
            family = match[1]
            assert family not in families, "families must not be torn apart"
            families[family] = [None, match[2]]
        elif match := re.fullmatch(rf"# TYPE ({NAME}) (counter|gauge|summary)", line):
            assert match[1] == family
            families[family][0] = match[2]
        else:
            name, labels, number = re.fullmatch(rf"({NAME})(?:\{{(.*)\}})? (\S+)", line).groups()
            assert name == family or (families[family][0] == "summary" and name in (f"{family}_sum", f"{family}_count"))
            found = LABEL.findall(labels or "")
            assert ",".join(f'{key}="{value}"' for key, value in found) == (labels or "")
            pairs = tuple((key, re.sub(r'\\[\\"n]', lambda m: UNESCAPED[m[0]], value)) for key, value in found)
            assert (name, pairs) not in samples, "a sample must not come twice"
            samples[name, pairs] = float(number)
    return samples, families


@pytest.fixture
def store():
    store = Store(clock=lambda: 5.0)
    for index in range(10):
        store.put(update(index, stages_ms={"infer": float(index)}, age_ms=np.float32(100), labels_age_ms=100.0 * index))
    store.add_event(Event("dropped", "front", "too old", count=4))
    store.add_event(Event("lost", "rear", "gone"))
    return store


def test_metrics_say_what_happened_in_base_units(store):
    samples, families = parsed(metrics_text(store, clients=3, drawn=7, met={"PAGES": 5}))
    front = (("source", "front"),)
    infer = (("source", "front"), ("stage", "infer"))
    expected = {
        ("sfpp_frames_total", front): 10,
        ("sfpp_frames_dropped_total", front): 4,
        ("sfpp_frames_per_second", front): 25,
        ("sfpp_seconds_since_last_frame", front): 0,
        ("sfpp_stage_latency_seconds", (*infer, ("quantile", "0.5"))): 0.0045,
        ("sfpp_stage_latency_seconds", (*infer, ("quantile", "0.9"))): 0.0081,
        ("sfpp_stage_latency_seconds", (*infer, ("quantile", "0.99"))): 0.00891,
        ("sfpp_stage_latency_seconds_sum", infer): 0.045,
        ("sfpp_stage_latency_seconds_count", infer): 10,
        ("sfpp_frame_age_seconds", (*front, ("quantile", "0.5"))): 0.1,
        ("sfpp_frame_age_seconds", (*front, ("quantile", "0.9"))): 0.1,
        ("sfpp_frame_age_seconds", (*front, ("quantile", "0.99"))): 0.1,
        ("sfpp_frame_age_seconds_sum", front): 1.0,
        ("sfpp_frame_age_seconds_count", front): 10,
        ("sfpp_labels_age_seconds", (*front, ("quantile", "0.5"))): 0.45,
        ("sfpp_labels_age_seconds", (*front, ("quantile", "0.9"))): 0.81,
        ("sfpp_labels_age_seconds", (*front, ("quantile", "0.99"))): 0.891,
        ("sfpp_labels_age_seconds_sum", front): 4.5,
        ("sfpp_labels_age_seconds_count", front): 10,
        **{("sfpp_class_share_ratio", (*front, ("class", name))): 1 / 3 for name in ("road", "sky", "car")},
        ("sfpp_events_total", (*front, ("kind", "dropped"))): 1,
        ("sfpp_events_total", (("source", "rear"), ("kind", "lost"))): 1,
        ("sfpp_viewer_clients", ()): 3,
        ("sfpp_viewer_pictures_total", ()): 7,
        ("sfpp_viewer_limits_met_total", (("limit", "pages"),)): 5,
    }
    assert samples == pytest.approx(expected)
    assert all(name.startswith("sfpp_") and about for name, (_, about) in families.items())
    assert families["sfpp_frames_total"][0] == "counter"
    assert families["sfpp_stage_latency_seconds"][0] == "summary"


def test_people_are_counted_where_they_are():
    store = Store()
    store.put(update(people=2, shares={}))
    samples, families = parsed(metrics_text(store, clients=0, drawn=0, met={}))
    assert samples["sfpp_people", (("source", "front"),)] == 2
    assert "sfpp_class_share_ratio" not in families


def test_hostile_names_are_escaped_and_come_back():
    hostile = 'a"b\\c\nd}{,=# é \\n'
    store = Store()
    store.put(update(source=hostile, shares={hostile: 0.5}, stages_ms={hostile: 1.0}))
    store.add_event(Event("note", hostile, "text"))
    samples, _ = parsed(metrics_text(store, clients=0, drawn=0, met={}))
    assert samples["sfpp_class_share_ratio", (("source", hostile), ("class", hostile))] == 0.5
    assert samples["sfpp_stage_latency_seconds_count", (("source", hostile), ("stage", hostile))] == 1
    assert samples["sfpp_events_total", (("source", hostile), ("kind", "note"))] == 1


def test_what_is_not_known_is_left_out():
    store = Store()
    store.put(update(age_ms=None, frames_per_second=float("nan"), shares={"road": float("inf")}, stages_ms={}))
    _, families = parsed(metrics_text(store, clients=0, drawn=0, met={}))
    unknown = {"sfpp_frame_age_seconds", "sfpp_labels_age_seconds", "sfpp_frames_per_second", "sfpp_class_share_ratio"}
    assert not unknown & set(families)
    assert parsed(metrics_text(Store(), clients=0, drawn=0, met={}))[0] == {
        ("sfpp_viewer_clients", ()): 0,
        ("sfpp_viewer_pictures_total", ()): 0,
    }


def test_metrics_are_served(viewer):
    viewer.show(update(source="\udcff"))  # a file's name need not be text
    answer = ask(viewer.url, "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples, _ = parsed(answer.text)
    assert samples["sfpp_frames_total", (("source", "?"),)] == 1


def test_health_follows_the_frames(open_viewer):
    viewer = open_viewer(limits=Limits(fresh_s=1.5))
    assert ask(viewer.url, "/healthz").status == 503
    viewer.show(update())
    answer = ask(viewer.url, "/healthz")
    assert answer.status == 200
    assert '"status": "ok"' in answer.text
    assert '"front": {"frames": 1' in answer.text
    while ask(viewer.url, "/healthz").status == 200:
        pass
    assert '"status": "no new frames"' in ask(viewer.url, "/healthz").text


def test_health_is_open_and_tells_strangers_no_names(open_viewer):
    viewer = open_viewer(token="a-token-of-the-test-0123456789")
    viewer.show(update())
    assert ask(viewer.url, "/healthz").text == '{"status": "ok"}'
    assert "front" in ask(viewer.url, "/healthz", Authorization="Bearer a-token-of-the-test-0123456789").text
