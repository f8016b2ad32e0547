"""Index tables of merging, against loops over the grid."""

import numpy as np
import pytest

from sfpp.export.lowering.geometry import Geometry, Slots

GRIDS = [((8, 12), (4, 4)), ((9, 11), (4, 4)), ((5, 7), (2, 3)), ((4, 4), (4, 4)), ((1, 6), (1, 2)), ((7, 2), (2, 2))]


@pytest.fixture(params=GRIDS, ids=str)
def slots(request):
    return Slots(Geometry(*request.param))


def cell_of(slots, token):
    (_, width), (cell_h, cell_w) = slots.geometry.grid_hw, slots.geometry.cell_hw
    return token // width // cell_h * slots.cells_hw[1] + token % width // cell_w


def test_every_token_stands_in_its_cell_once(slots):
    table = slots.token_of_slot.reshape(slots.count, slots.width)
    tokens = slots.geometry.grid_hw[0] * slots.geometry.grid_hw[1]
    assert sorted(table[table >= 0]) == list(range(tokens))
    for cell, row in enumerate(table):
        assert all(cell_of(slots, token) == cell for token in row[row >= 0])


def test_sources_find_their_slots_and_back(slots):
    sources = slots.geometry.partition.sources
    assert np.array_equal(slots.token_of_slot[slots.slot_of_source], sources)
    assert np.array_equal(slots.source_of_slot[slots.slot_of_source], np.arange(len(sources)))
    others = np.setdiff1d(np.arange(slots.count * slots.width), slots.slot_of_source)
    assert (slots.source_of_slot[others] == len(sources)).all()


def test_neighbors_are_the_destinations_of_touching_cells(slots):
    rows, columns = slots.cells_hw
    cells = [cell_of(slots, token) for token in slots.geometry.partition.destinations]
    for cell in range(rows * columns):
        near = [
            index
            for index, other in enumerate(cells)
            if abs(other // columns - cell // columns) <= 1 and abs(other % columns - cell % columns) <= 1
        ]
        row = slots.neighbors[cell]
        assert row[row >= 0].tolist() == near
        # By first appearance they ascend, or a tie would not go to the first destination.
        assert list(dict.fromkeys(slots.nearest_neighbors[cell].tolist())) == near


def test_every_destination_is_offered_what_its_neighbors_have_for_it(slots):
    offers = slots.offers.reshape(-1, 9)
    flat = slots.neighbors.ravel()
    assert flat[0] == -1  # what fills up an incomplete list must count for nothing
    for destination, row in enumerate(offers):
        entries = np.flatnonzero(flat == destination)
        assert row[: len(entries)].tolist() == entries.tolist()
        assert (row[len(entries) :] == 0).all()
