"""Commands whose work is done in a process that may be killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems kill nobody for taking memory")

WORK = """
import os, signal, sys, tempfile, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
from sfpp.tooling.supervised import supervised

fork = os.fork

def slow_fork():
    child = fork()
    if child:
        time.sleep({pause})
    return child

os.fork = slow_fork

def work():
    folder = tempfile.mkdtemp()
    print(os.getpid(), flush=True)
    {work}

sys.exit(supervised("sfpp-test", work))
"""


@pytest.fixture
def begin(tmp_path):
    """Return what starts a command and gives its process and that of its work, once this has begun."""
    started = []

    def start(work, pause=0, **options):
        process = subprocess.Popen(
            [sys.executable, "-c", WORK.format(work=work, pause=pause)],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        started.append(process)
        worker = int(process.stdout.readline())
        assert worker != process.pid
        return process, worker

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process):
    _, errors = process.communicate()
    return process.returncode, errors


def test_a_killed_process_is_reported_and_leaves_nothing(begin, tmp_path):
    process, worker = begin("time.sleep(100)")
    assert list(tmp_path.iterdir())
    os.kill(worker, signal.SIGKILL)
    code, errors = ended(process)
    assert code == 1
    assert errors.startswith(
        "sfpp-test: error: the work was ended by signal 9 (SIGKILL), as the system does where memory"
    )
    assert errors.count("\n") == 1
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_gives_up_is_reported(begin, tmp_path):
    process, _ = begin("os.abort()")
    code, errors = ended(process)
    assert code == 1
    assert "signal 6 (SIGABRT)" in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("work", "code"), [("return 0", 0), ("return 7", 7), ("sys.exit(2)", 2), ("sys.exit()", 0)])
def test_the_exit_code_is_that_of_the_work(begin, tmp_path, work, code):
    process, _ = begin(work)
    assert ended(process) == (code, "")
    assert list(tmp_path.iterdir()) == []


def test_a_bug_shows_its_traceback_once(begin):
    process, _ = begin("raise ValueError('a bug')")
    code, errors = ended(process)
    assert code == 1
    assert errors.count("ValueError: a bug") == 1
    assert "the work was ended" not in errors


@pytest.mark.parametrize("pause", [0, 0.5])
def test_what_asks_the_command_to_end_ends_the_work(begin, tmp_path, pause):
    """Also while the command does not know yet which process does the work."""
    process, worker = begin("time.sleep(100)", pause)
    process.terminate()
    assert ended(process) == (128 + signal.SIGTERM, "")
    assert not is_running(worker)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("both", [False, True])
def test_ctrl_c_is_the_works_to_answer(begin, tmp_path, both):
    """A terminal sends it to both; somebody else, to the command alone."""
    work = """
    from sfpp.runtime.cli.console import exit_code_of

    def sleep():
        try:
            print("ready", flush=True)
            time.sleep(100)
        finally:
            time.sleep(0.2)
            print("cleaned")

    return exit_code_of("sfpp-test", sleep)"""
    process, _ = begin(work, start_new_session=True)
    assert process.stdout.readline() == "ready\n"
    if both:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    output, errors = process.communicate()
    assert (process.returncode, output, errors) == (130, "cleaned\n", "sfpp-test: stopped\n")
    assert list(tmp_path.iterdir()) == []


def test_the_work_does_not_outlive_a_command_that_is_killed(begin):
    process, worker = begin("time.sleep(100)")
    process.kill()
    process.wait()
    while is_running(worker):
        time.sleep(0.05)


def is_running(process_id):
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize("module", ["export.cli", "export.parity.cli", "calibration.cli"])
def test_the_commands_that_take_memory_are_supervised(module):
    """Their help is printed by another process than the one that was started."""
    script = (
        "import importlib, os, sys; sys.argv[1:] = ['--help']\n"
        f"cli = importlib.import_module('sfpp.{module}')\n"
        "before, main = os.getpid(), cli.main\n"
        "cli.main = lambda: print('here' if os.getpid() == before else 'elsewhere') or main()\n"
        "sys.exit(cli.command())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("elsewhere\nusage: sfpp-")
