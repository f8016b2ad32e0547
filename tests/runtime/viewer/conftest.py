"""A viewer on a port of its own."""

import pytest


@pytest.fixture
def open_viewer():
    """Opens viewers, and closes them after the test."""
    from tests.runtime.viewer.looking import Viewer, model_shown  # here, since it skips where aiohttp is missing

    viewers = []

    def opening(model=None, **options):
        viewer = Viewer(model or model_shown(), **{"port": 0, **options})
        viewer.start()
        viewers.append(viewer)
        return viewer

    yield opening
    for viewer in viewers:
        viewer.close()


@pytest.fixture
def viewer(open_viewer):
    return open_viewer()
