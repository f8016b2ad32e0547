"""How many inputs the readers are given: a few each in every run of the tests, very many by `make fuzz`."""

import contextlib
import faulthandler
import importlib.util
import os
import resource
import sys
from collections import defaultdict
from pathlib import Path

import pytest

# Where only the device's libraries are installed, hypothesis need not be.
if importlib.util.find_spec("hypothesis") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    from hypothesis import HealthCheck, Phase, configuration, settings
    from hypothesis.database import DirectoryBasedExampleDatabase

    _BUILD = Path(__file__).parents[2] / "build" / "fuzz"
    configuration.set_hypothesis_home_dir(_BUILD)
    usual = {"deadline": None, "print_blob": True, "suppress_health_check": list(HealthCheck)}
    # Always the same inputs, so that a test fails only where the code has changed.
    settings.register_profile("quick", max_examples=25, derandomize=True, database=None, **usual)
    settings.register_profile(
        "long",
        max_examples=640,
        database=DirectoryBasedExampleDatabase(_BUILD / "examples"),
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
        **usual,
    )
    settings.load_profile("quick")

    from tests.fuzz import judging

# No input takes more than a few seconds on a busy machine; what takes this long has no end.
_ENDLESS_S = 300
# A reader may fill its libraries, and hold a picture or two; what grows by this much was led to it by its input.
_MOST_GROWTH_MB = 1200
_PER_MB = 2**20 if sys.platform == "darwin" else 2**10


@pytest.fixture(scope="session")
def _stderr(pytestconfig):
    """The real one, since what is captured is lost with the process."""
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        number = os.dup(2)
    yield number
    os.close(number)


@pytest.fixture(autouse=True)
def _watched(request, _stderr):
    """End the process with a traceback where an input has no end; bound the memory; count the inputs."""
    judging.on_input = lambda: faulthandler.dump_traceback_later(_ENDLESS_S, exit=True, file=_stderr)
    judging.tally = judging.Tally()
    before = _peak_mb()
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
    growth, tally = _peak_mb() - before, judging.tally
    request.node.user_properties.append(("fuzz", (request.node.name, tally.inputs, tally.seconds, growth)))
    assert growth < _MOST_GROWTH_MB, f"the peak memory grew by {growth:.0f} MB"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder to write inputs to, in which the process stands: a name among the inputs leads nowhere else."""
    place = tmp_path_factory.mktemp("fuzz")
    with contextlib.chdir(place) if sys.version_info >= (3, 11) else contextlib.nullcontext():
        yield place


def _peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _PER_MB


def pytest_configure(config):
    """What hypothesis says of long inputs is nothing to fail over."""
    config.addinivalue_line("filterwarnings", "ignore::hypothesis.errors.HypothesisWarning")


def pytest_terminal_summary(terminalreporter, config):
    """Say how many inputs each reader was given, in a long run."""
    if config.getoption("--hypothesis-profile", None) != "long":
        return
    rows = defaultdict(tuple)
    for report in (each for kind in terminalreporter.stats.values() for each in kind):
        rows.update((row[0], row) for key, row in getattr(report, "user_properties", ()) if key == "fuzz")
    terminalreporter.section(f"inputs, seed {config.getoption('--hypothesis-seed', None)}")
    for name, inputs, seconds, growth in sorted(rows.values()):
        terminalreporter.write_line(f"{name}: {inputs} inputs in {seconds:.0f} s, peak memory + {growth:.0f} MB")
    total, seconds = (sum(row[column] for row in rows.values()) for column in (1, 2))
    terminalreporter.write_line(f"{total} inputs in {seconds:.0f} s of all workers together")
