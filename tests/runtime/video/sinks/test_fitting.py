import numpy as np
import pytest

from sfpp.runtime.video.sinks.fitting import FirstSize


def test_the_first_size_holds_for_all_and_changes_are_told():
    events = []
    fitting = FirstSize("out.mp4", events.append)
    first = np.full((40, 60, 3), 50, np.uint8)
    assert fitting.fit(first) is first
    assert fitting.fit(np.full((20, 30, 3), 9, np.uint8)).shape == (40, 60, 3)
    assert fitting.fit(np.full((20, 30, 3), 9, np.uint8)).shape == (40, 60, 3)
    assert fitting.fit(first) is first
    assert [(event.kind, event.source) for event in events] == [("size-changed", "out.mp4")] * 2
    assert "30x20 (width x height) now, written at 60x40" in events[0].detail
    assert "60x40 (width x height) now, as at the beginning" in events[1].detail


@pytest.mark.parametrize(("size_hw", "rows", "columns"), [((20, 60), (10, 30), (0, 60)), ((40, 30), (0, 40), (15, 45))])
def test_another_shape_gets_bars(size_hw, rows, columns):
    fitting = FirstSize("out", lambda event: None)
    fitting.fit(np.zeros((40, 60, 3), np.uint8))
    fitted = fitting.fit(np.full((*size_hw, 3), 200, np.uint8))
    expected = np.zeros((40, 60, 3), np.uint8)
    expected[rows[0] : rows[1], columns[0] : columns[1]] = 200
    np.testing.assert_array_equal(fitted, expected)


def test_labels_keep_their_values_and_get_bars_of_no_class():
    fitting = FirstSize("out", lambda event: None)
    fitting.fit(np.zeros((40, 60), np.uint8))
    labels = np.repeat(np.array([[3, 11]], np.uint8), 20, axis=0).repeat(10, axis=1)  # (20, 20)
    fitted = fitting.fit(labels)
    np.testing.assert_array_equal(fitted[:, 10:30], 3)
    np.testing.assert_array_equal(fitted[:, 30:50], 11)
    np.testing.assert_array_equal(fitted[:, [*range(10), *range(50, 60)]], 255)


def test_shrinking_averages_what_lies_between():
    fitting = FirstSize("out", lambda event: None)
    fitting.fit(np.zeros((8, 8, 3), np.uint8))
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[::4] = 200
    np.testing.assert_array_equal(fitting.fit(stripes), 50)
