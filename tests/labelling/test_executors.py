"""Dask and Parsl with real workers give the records of the process pool."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from helpers.processes import marked, wait_for

from hint_plugins.labelling.engine import EngineSpec
from hint_plugins.labelling.record import LabelTask
from hint_plugins.labelling.run import label_file
from hint_plugins.runs.executors import ExecutorError, executor_factory
from hint_plugins.storage.store import read_structures, write_structures

SPEC = EngineSpec("helpers.label_engines:FussyEngine")


def structures():
    rng = np.random.default_rng(0)
    frames = [Atoms("H2O", rng.normal(0, 1.5, (3, 3)) + 4 * np.eye(3)) for _ in range(7)]
    frames.insert(3, Atoms("NH2", frames[0].positions))
    return frames


def labelled(tmp_path, name, **options):
    out = tmp_path / f"{name}.xyz"
    summary, failures = label_file(
        lambda: enumerate(structures()),
        out,
        SPEC,
        LabelTask("full"),
        executor_factory(name, 2, **options),
        shards=tmp_path / f"{name}.shards",
        workers=2,
        batch_size=2,
    )
    assert (summary.n_done, summary.n_failed) == (7, 1)
    assert "no parameters for N" in failures[0]["error"]
    return [
        {k: np.asarray(v).tolist() for k, v in a.info.items() if k != "label_seconds"} for a in read_structures(out)
    ]


@pytest.fixture
def reference(tmp_path):
    return labelled(tmp_path, "local")


@pytest.fixture
def importable(monkeypatch):
    """Let worker processes find the engines of these tests."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))


def test_dask_local_cluster(tmp_path, reference, importable):
    pytest.importorskip("distributed")
    assert labelled(tmp_path, "dask") == reference


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("executor", "number"),
    [
        ("local", signal.SIGINT),
        ("dask", signal.SIGINT),
        ("dask", signal.SIGKILL),
        ("parsl", signal.SIGINT),
        ("parsl", signal.SIGKILL),
    ],
)
def test_nothing_outlives_a_stopped_run(tmp_path, importable, executor, number):
    """Ctrl-C (to the whole group, as a terminal sends it) is answered in a sentence while a label takes 1,000 s."""
    if executor != "local":
        pytest.importorskip({"dask": "distributed", "parsl": "parsl"}[executor])
    write_structures(tmp_path / "in.xyz", structures())
    mark = uuid.uuid4().hex
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    words = ["label", "in.xyz", "out.xyz", "--workers", "1", "--executor", executor, "--kind", "forces"]
    begun = tmp_path / "begun"
    words += ["--engine", "helpers.label_engines:QuarticEngine", "--set", "delay=1000", "--set", f"begun={begun}"]
    process = subprocess.Popen(
        [sys.executable, "-c", f"{start}from hint_plugins.cli.main import main; main()", *words],
        cwd=tmp_path,
        env=os.environ | {"MARK": mark},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert wait_for(lambda: begun.exists() or process.poll() is not None)
        assert len(marked(mark)) > 1
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        assert wait_for(lambda: process.poll() is not None)
        assert wait_for(lambda: not marked(mark))
    finally:
        process.kill()
    errors = process.communicate()[1]
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert errors.rstrip().endswith("run the same command again to continue where it can be continued")
        assert "Traceback" not in errors, errors


def test_dask_scheduler_by_address(tmp_path, reference, importable):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        assert labelled(tmp_path, "dask", scheduler=cluster.scheduler_address) == reference


def test_parsl_local_executor(tmp_path, reference, importable):
    pytest.importorskip("parsl")
    assert labelled(tmp_path, "parsl") == reference


def test_parsl_configuration_file(tmp_path, reference, importable):
    pytest.importorskip("parsl")
    config = tmp_path / "config.py"
    config.write_text(
        "from parsl.config import Config\n"
        "from parsl.executors import ThreadPoolExecutor\n"
        f"config = Config(executors=[ThreadPoolExecutor(max_threads=2)], run_dir={str(tmp_path / 'runinfo')!r})\n"
    )
    assert labelled(tmp_path, "parsl", parsl_config=config) == reference


def test_wrong_parsl_configurations(tmp_path):
    pytest.importorskip("parsl")
    empty, broken = tmp_path / "empty.py", tmp_path / "broken.py"
    empty.write_text("x = 1\n")
    broken.write_text("1/0\n")
    for file, reason in (
        (tmp_path / "none.py", "no such Parsl configuration"),
        (empty, "must define `config`"),
        (broken, "ZeroDivisionError"),
    ):
        with pytest.raises(ExecutorError, match=reason), executor_factory("parsl", 1, parsl_config=file)():
            pass


def test_dask_without_a_scheduler():
    pytest.importorskip("distributed")
    code = (
        "from hint_plugins.runs import executors\n"
        "import dask; dask.config.set({'distributed.comm.timeouts.connect': '1s'})\n"
        "try:\n"
        "    with executors.executor_factory('dask', 1, scheduler='tcp://127.0.0.1:9')(): pass\n"
        "except executors.ExecutorError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in result.stdout, result.stderr
