"""Nothing is told to anybody: what commands and Python leave in the user's folders, and which names they look up."""

import os
import shutil
import subprocess
import sys

import pytest

from sfpp.runtime.contract import METADATA_KEY
from tests.runtime.backends.graphs import write_sums
from tests.runtime.video.clips import CONTRACT

# Stands before the C library, so that native code is seen too.
WATCH = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    real = dlsym(RTLD_NEXT, "getaddrinfo");
    FILE *file = fopen(getenv("LOOKED_UP"), "a");
    if (file) { fprintf(file, "%s\\n", node ? node : ""); fclose(file); }
    return real(node, service, hints, found);
}
"""
CHECKS = {
    "the watch itself": ["import socket; socket.getaddrinfo('localhost', 80)"],
    "Python, ONNX Runtime": [
        "from pathlib import Path; from sfpp.runtime.backends import OnnxRuntimeBackend as B; "
        "import sys; B(Path(sys.argv[1]))"
    ],
    "Python, OpenVINO": [
        "from pathlib import Path; from sfpp.runtime.backends import OpenVinoBackend as B; "
        "import sys; B(Path(sys.argv[1]))"
    ],
    **{
        f"{module} {' '.join(options)}": [
            f"import sys; from {module} import main; sys.exit(main(sys.argv[1:]))",
            *options,
        ]
        for module, *options in (
            ("sfpp.runtime.bench.cli", "--runs", "1", "--no-peak", "--no-memory"),
            ("sfpp.runtime.cli.run", "demo", "o.mp4", "--backend", "onnxruntime"),
            ("sfpp.runtime.cli.run", "demo", "o.mp4", "--backend", "openvino"),
            ("sfpp.export.engine", "--check"),
            ("sfpp.calibration.cli", "--images", "."),
            ("sfpp.export.parity.cli", "--images", "."),
        )
    },
}


@pytest.fixture(scope="session")
def watch(tmp_path_factory):
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("looking at what native code looks up needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("watch") / "watch.so"
    library.with_suffix(".c").write_text(WATCH)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, library.with_suffix(".c"), "-ldl"], check=True)
    return library


@pytest.mark.parametrize("check", CHECKS)
def test_nothing_is_left_in_the_users_folders_and_nobody_is_looked_up(tmp_path, watch, check):
    home = tmp_path / "home"
    home.mkdir()
    model = write_sums(tmp_path / "model.onnx", metadata={METADATA_KEY: CONTRACT.to_json()})
    code, *options = CHECKS[check]
    folders = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TMPDIR"), str(home))
    own = {"SFPP_CACHE": str(tmp_path / "cache"), "LOOKED_UP": str(tmp_path / "names"), "LD_PRELOAD": str(watch)}
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    command = [sys.executable, "-c", code, str(model), *options]
    subprocess.run(command, cwd=tmp_path, env=environment | folders | own, capture_output=True, check=False)
    assert (tmp_path / "names").exists() == (check == "the watch itself")
    assert [each for each in home.rglob("*") if each.is_file()] == []
