"""A labelling run: killed, resumed, disturbed, and in any number of workers the same labels."""

import errno
import gzip
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from hint_plugins.labelling.engine import EngineError, EngineSpec
from hint_plugins.labelling.record import LabelTask
from hint_plugins.labelling.run import label_file
from hint_plugins.labelling.shards import ShardError, ShardStore
from hint_plugins.runs.executors import ExecutorError, executor_factory
from hint_plugins.storage.store import read_structures, write_structures

QUARTIC = EngineSpec("helpers.label_engines:QuarticEngine")
FUSSY = EngineSpec("helpers.label_engines:FussyEngine")


def some(count, symbols="H2O", seed=0):
    rng = np.random.default_rng(seed)
    return [Atoms(symbols, rng.normal(0, 1.5, (3, 3)) + 4 * np.eye(3)) for _ in range(count)]


def run(structures, tmp_path, name="out.xyz", spec=QUARTIC, task=None, workers=1, **options):
    out = tmp_path / name
    task = task or LabelTask("projections", num_probes=2)
    summary, failures = label_file(
        lambda: enumerate(a.copy() for a in structures),
        out,
        spec,
        task,
        executor_factory("local", workers),
        shards=tmp_path / f"{name}.shards",
        workers=workers,
        batch_size=options.pop("batch_size", 3),
        **options,
    )
    return out, summary, failures


def contents(path):
    """Everything in a labelled file but the time it took."""
    frames = []
    for atoms in read_structures(path):
        info = {k: np.asarray(v).tolist() for k, v in atoms.info.items() if k != "label_seconds"}
        frames.append((atoms.positions.tolist(), atoms.arrays["REF_forces"].tolist(), info))
    return frames


def test_workers_do_not_change_the_labels(tmp_path):
    structures = some(10)
    one = run(structures, tmp_path, "one.xyz", workers=1)[0]
    three = run(structures, tmp_path, "three.xyz", workers=3, batch_size=1)[0]
    assert contents(one) == contents(three)


def test_second_run_does_nothing_twice_and_takes_new_structures(tmp_path):
    structures = some(4)
    _, first, _ = run(structures, tmp_path)
    assert (first.n_input, first.n_done, first.n_skipped) == (4, 4, 0)
    _, again, _ = run(structures, tmp_path)
    assert (again.n_done, again.n_skipped) == (0, 4)
    _, more, _ = run([*structures, *some(2, seed=9), structures[0]], tmp_path)
    assert (more.n_input, more.n_done, more.n_skipped) == (7, 2, 5)


def test_failures_are_recorded_and_the_run_goes_on(tmp_path):
    structures = [*some(2), *some(1, "NH2"), *some(1, "FH2"), *some(1, "ClH2"), *some(2, seed=1)]
    out, summary, failures = run(structures, tmp_path, spec=FUSSY, workers=2)
    assert (summary.n_done, summary.n_failed) == (4, 3)
    reasons = {f["index"]: f["error"] for f in failures}
    assert "no parameters for N" in reasons[2]
    assert "not finite" in reasons[3]
    assert "worker process died" in reasons[4]
    assert len(list(read_structures(out))) == 4
    _, again, _ = run(structures, tmp_path, spec=FUSSY)
    assert (again.n_done, again.n_skipped, again.n_failed) == (0, 4, 3)


def test_retry_failed(tmp_path):
    structures = [*some(1), *some(1, "NH2")]
    run(structures, tmp_path, spec=FUSSY)
    tried = []
    run(
        structures,
        tmp_path,
        spec=FUSSY,
        retry_failed=True,
        progress=lambda made, failed: tried.append((made, failed)),
    )
    assert tried == [(1, 1)]


def test_other_settings_are_refused_unless_fresh(tmp_path):
    run(some(2), tmp_path)
    with pytest.raises(ShardError, match="kind: 'projections' there, 'full' now"):
        run(some(2), tmp_path, task=LabelTask("full"))
    _, summary, _ = run(some(2), tmp_path, task=LabelTask("full"), fresh=True)
    assert summary.n_done == 2


def test_two_runs_on_one_output(tmp_path):
    with ShardStore(tmp_path / "s", {}):
        code = (
            "import sys, pathlib; from hint_plugins.labelling.shards import *\n"
            "try: ShardStore(pathlib.Path(sys.argv[1]), {})\n"
            "except ShardError as e: print(e)"
        )
        out = subprocess.run([sys.executable, "-c", code, tmp_path / "s"], capture_output=True, text=True, check=True)
    assert "another run is writing" in out.stdout


def test_broken_engine_stops_the_run(tmp_path):
    with pytest.raises(EngineError, match="cannot be loaded"):
        run(some(2), tmp_path, spec=EngineSpec("nowhere.at.all:Engine"))


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_torn_shard_keeps_every_whole_record(tmp_path_factory, data):
    directory = tmp_path_factory.mktemp("torn")
    records = [{"key": f"{i:032x}", "status": "done", "x": [0.1 * i] * 20} for i in range(5)]
    with ShardStore(directory, {}) as store:
        store.append(records)
        ends = [*[p.offset for p in store.places.values()][1:], store.paths[0].stat().st_size]
    path = directory / "part-00000.jsonl.gz"
    cut = data.draw(st.integers(0, path.stat().st_size))
    with path.open("r+b") as handle:
        handle.truncate(cut)
    whole = sum(end <= cut for end in ends)
    with ShardStore(directory, {}) as store:
        assert [store.get(k) for k in store.places] == records[:whole]
        store.append(records[whole:])
    with ShardStore(directory, {}) as store:
        assert sorted(store.places) == [r["key"] for r in records]


def test_shards_are_lines_of_json(tmp_path):
    """What the name of the file promises to any other reader (``zcat``), killed runs included."""
    records = [{"key": f"{i:032x}", "status": "done", "x": i} for i in range(3)]
    for record in records:
        with ShardStore(tmp_path, {}) as store:
            store.append([record])
    text = b"".join(gzip.decompress(path.read_bytes()) for path in sorted(tmp_path.glob("*.jsonl.gz"))).decode()
    assert [json.loads(line) for line in text.splitlines()] == records


def test_damage_in_the_middle_costs_one_record(tmp_path):
    records = [{"key": f"{i:032x}", "status": "done", "x": i} for i in range(5)]
    with ShardStore(tmp_path / "s", {}) as store:
        store.append(records)
        offset = store.places[records[2]["key"]].offset
    path = tmp_path / "s" / "part-00000.jsonl.gz"
    content = bytearray(path.read_bytes())
    content[offset + 20] ^= 0xFF
    path.write_bytes(content)
    with ShardStore(tmp_path / "s", {}) as store:
        assert sorted(store.places) == [r["key"] for i, r in enumerate(records) if i != 2]


def test_full_disk_leaves_whole_records(tmp_path, monkeypatch):
    import hint_plugins.labelling.shards as shards

    record = {"key": "0" * 32, "status": "done", "x": list(range(100))}
    with ShardStore(tmp_path / "s", {}) as store:
        store.append([record])

        def full(handle, member):
            handle.write(member[:7])
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(shards, "_write_all", full)
            with pytest.raises(ShardError, match=r"disk is full. 1 finished records are safe"):
                store.append([{**record, "key": "1" * 32}])
        store.append([{**record, "key": "2" * 32}])
    with ShardStore(tmp_path / "s", {}) as store:
        assert sorted(store.places) == ["0" * 32, "2" * 32]


def test_kill_minus_nine_three_times(tmp_path):
    structures = some(24)
    source = tmp_path / "in.xyz"
    write_structures(source, structures)
    slow = EngineSpec("helpers.label_engines:QuarticEngine", {"delay": 0.01})
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from hint_plugins.labelling.engine import EngineSpec\n"
        "from hint_plugins.runs.executors import executor_factory\n"
        "from hint_plugins.labelling.record import LabelTask\n"
        "from hint_plugins.labelling.run import label_file\n"
        "from hint_plugins.storage.store import read_numbered\n"
        "if __name__ == '__main__':\n"
        "    source, out = map(Path, sys.argv[1:])\n"
        f"    spec = EngineSpec({slow.name!r}, {dict(slow.options)!r})\n"
        "    label_file(lambda: read_numbered(source), out, spec, LabelTask('projections', num_probes=2),\n"
        "               executor_factory('local', 2), shards=out.with_suffix('.shards'),\n"
        "               workers=2, batch_size=1)\n"
    )
    program = tmp_path / "program.py"
    program.write_text(script)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([p for p in sys.path if p])}
    out, shards = tmp_path / "killed.xyz", tmp_path / "killed.shards"
    command = [sys.executable, str(program), str(source), str(out)]
    rng = np.random.default_rng()
    kills = 0
    for _ in range(3):
        size = sum(p.stat().st_size for p in shards.glob("part-*"))
        process = subprocess.Popen(command, env=environment)
        while process.poll() is None and sum(p.stat().st_size for p in shards.glob("part-*")) == size:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.05))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills == 3
    assert not out.exists()
    with ShardStore(shards, _manifest(shards)) as store:
        assert 0 < len(store.places) < 24
    subprocess.run(command, env=environment, check=True)
    unbroken = tmp_path / "unbroken.xyz"
    subprocess.run([sys.executable, str(program), str(source), str(unbroken)], env=environment, check=True)
    assert contents(out) == contents(unbroken)
    assert len(contents(out)) == 24


def test_frozen_atoms_stay_frozen(tmp_path):
    from ase.build import bulk
    from ase.constraints import FixAtoms

    slab = bulk("Cu", cubic=True)
    slab.rattle(0.05, seed=1)
    free = slab.copy()
    slab.set_constraint(FixAtoms([0, 1]))
    summary, _ = label_file(
        lambda: enumerate([slab.copy(), free.copy()]),
        tmp_path / "out.xyz",
        EngineSpec("ase", {"calculator": "emt"}),
        LabelTask(),
        executor_factory("local", 1),
        shards=tmp_path / "shards",
    )
    assert summary.n_with_frozen_atoms == summary.n_blocks == 1
    held, loose = read_structures(tmp_path / "out.xyz")
    assert [c.index.tolist() for c in held.constraints] == [[0, 1]]
    assert not loose.constraints
    np.testing.assert_array_equal(held.arrays["REF_forces"], loose.arrays["REF_forces"])
    assert np.abs(held.arrays["REF_forces"][:2]).min() > 1e-3
    whole = loose.info["REF_hessian"].reshape(12, 12)
    np.testing.assert_allclose(held.info["REF_hessian_block"].reshape(6, 6), whole[6:, 6:], atol=1e-9)


def _manifest(shards):
    import json

    return json.loads((shards / "run.json").read_text())


def test_wrong_executors():
    for arguments, reason in (
        (("cloud", 1), "unknown executor"),
        (("local", 0), "at least 1"),
    ):
        with pytest.raises(ExecutorError, match=reason):
            executor_factory(*arguments)
    with pytest.raises(ExecutorError, match="belongs to --executor dask"):
        executor_factory("local", 1, scheduler="tcp://x:1")
