import threading

import pytest

from sfpp.runtime.video.mailbox import DropReporter, Mailbox, wait_until


def in_thread(work):
    """Run it beside the test; return the thread and the list that its result comes into."""
    results = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    return thread, results


@pytest.mark.parametrize("room", [1, 3])
def test_all_items_come_in_order_and_no_more_wait_than_there_is_room(room):
    box, waiting = Mailbox(room), []

    def put_all():
        for item in range(50):
            assert box.put(item)
            waiting.append(box.waiting)

    thread, _ = in_thread(put_all)
    assert [box.take() for _ in range(50)] == list(range(50))
    thread.join()
    assert max(waiting) <= room
    assert box.replaced == 0


def test_the_newest_replaces_the_oldest_and_is_counted():
    box = Mailbox(2, newest=True)
    for item in range(5):
        assert box.put(item)
    assert [box.take(), box.take()] == [3, 4]
    assert box.replaced == 3
    assert box.take(0.01, default="nothing") == "nothing"


def test_either_side_can_end_it():
    box = Mailbox()
    box.put("first")
    thread, results = in_thread(lambda: box.put("second"))
    box.close(discard=False)
    thread.join()
    assert results == [False]
    assert box.take() == "first"  # which had come before
    assert box.take() is None
    assert not box.put("third")
    box = Mailbox()
    thread, results = in_thread(lambda: box.take(default="closed"))
    box.close()
    thread.join()
    assert results == ["closed"]


def test_what_is_not_wanted_any_more_is_not_put():
    changed, unwanted = threading.Condition(), []
    box = Mailbox(changed=changed)
    box.put(1)
    thread, results = in_thread(lambda: box.put(2, unless=lambda: bool(unwanted)))
    with changed:
        unwanted.append(True)
    box.discard()
    thread.join()
    assert results == [False]
    assert box.waiting == 0


def test_one_thread_waits_for_several():
    changed = threading.Condition()
    boxes = [Mailbox(changed=changed) for _ in range(3)]
    thread, _ = in_thread(lambda: boxes[2].put("here"))
    with changed:
        assert wait_until(changed, lambda: any(box.waiting for box in boxes), 60)
        assert [box.waiting for box in boxes] == [0, 0, 1]
        assert not wait_until(changed, lambda: False, 0.01)
    thread.join()


def test_drops_are_reported_once_a_second():
    now_s, events = 10.0, []
    drops = DropReporter("street", events.append, lambda count, seconds: f"{count} in {seconds}", clock=lambda: now_s)
    drops.report(0)
    drops.report(1)
    now_s = 10.5
    drops.report(3)
    now_s = 11.5
    drops.report(4)
    drops.report(5)
    drops.report(6, always=True)
    assert [(event.source, event.kind, event.count, event.detail) for event in events] == [
        ("street", "dropped", 1, "1 in 0.0"), ("street", "dropped", 3, "3 in 1.5"), ("street", "dropped", 2, "2 in 0.0")
    ]  # fmt: skip
