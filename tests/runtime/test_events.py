import time

from sfpp.runtime.events import Event


def test_an_event_is_one_line_and_knows_when_it_was():
    before = time.time()
    event = Event("lost", "door", "no frame for 5 s:\n tried again in 1 s")
    assert event.line() == "door: lost: no frame for 5 s: tried again in 1 s"
    assert before <= event.time_s <= time.time()
