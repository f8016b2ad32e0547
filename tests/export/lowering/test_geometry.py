"""Index tables of merging, against loops over the grid."""

from functools import partial

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from sfpp.export.lowering.geometry import Geometry, Slots, positions_among

GRIDS = [((8, 12), (4, 4)), ((9, 11), (4, 4)), ((5, 7), (2, 3)), ((4, 4), (4, 4)), ((1, 6), (1, 2)), ((7, 2), (2, 2))]


# Of k-means: rows and columns of cells instead of their size; they need not divide the grid.
CELLS = [((8, 12), (2, 3)), ((9, 11), (4, 5)), ((5, 7), (5, 7)), ((4, 4), (1, 1)), ((1, 6), (1, 4)), ((7, 2), (3, 2))]


class Windows:
    """The cells of bipartite merging: of one size, with a destination in each complete one."""

    def __init__(self, grid_hw, cell_hw):
        self.grid_hw, self.cell_hw = grid_hw, cell_hw
        self.geometry = Geometry(grid_hw, cell_hw)
        self.slots = Slots.of_windows(self.geometry)
        self.destination_cells = [self.cell_of(token) for token in self.geometry.partition.destinations]

    def cell_of(self, token):
        row, column = divmod(token, self.grid_hw[1])
        return row // self.cell_hw[0] * -(-self.grid_hw[1] // self.cell_hw[1]) + column // self.cell_hw[1]


class Rectangles:
    """The cells of k-means: so many of them, all destinations."""

    def __init__(self, grid_hw, cells_hw):
        self.grid_hw, self.cells_hw = grid_hw, cells_hw
        names = ("grid_h", "grid_w", "cells_h", "cells_w")
        attributes = dict(zip(names, (*grid_hw, *cells_hw), strict=True))
        self.slots = Slots.of_cells(gs.Node("NearestCell", attrs=attributes))
        self.destination_cells = list(range(cells_hw[0] * cells_hw[1]))

    def cell_of(self, token):
        row, column = divmod(token, self.grid_hw[1])
        # The cell c of n on a side of s tokens holds those from s * c / n on.
        inside = [
            max(cell for cell in range(count) if -(-size * cell // count) <= position)
            for position, size, count in zip((row, column), self.grid_hw, self.cells_hw, strict=True)
        ]
        return inside[0] * self.cells_hw[1] + inside[1]


@pytest.fixture(params=[*(partial(Windows, *each) for each in GRIDS), *(partial(Rectangles, *each) for each in CELLS)])
def layout(request):
    return request.param()


@pytest.fixture
def slots(layout):
    return layout.slots


def test_every_token_stands_in_its_cell_once(layout, slots):
    table = slots.token_of_slot.reshape(slots.count, slots.width)
    tokens = layout.grid_hw[0] * layout.grid_hw[1]
    assert sorted(table[table >= 0]) == list(range(tokens))
    assert np.array_equal(slots.token_of_slot[slots.slot_of_token], np.arange(tokens))
    for cell, row in enumerate(table):
        assert all(layout.cell_of(token) == cell for token in row[row >= 0])
    assert slots.count == max(map(layout.cell_of, range(tokens))) + 1


def test_positions_among_some_tokens():
    chosen, tokens = np.array([1, 4, 6]), np.array([-1, 0, 1, 4, 5, 6, 7])
    assert positions_among(tokens, chosen).tolist() == [3, 3, 0, 1, 3, 2, 3]


def test_neighbors_are_the_destinations_of_touching_cells(layout, slots):
    rows, columns = slots.cells_hw
    cells = layout.destination_cells
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
