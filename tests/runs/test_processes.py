"""Programs end with the process that started them, and two commands do not write to one output."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from helpers.processes import alive, wait_for

from hint_plugins.errors import InputError
from hint_plugins.runs import locks
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.output_file import OutputFile
from hint_plugins.runs.processes import end_all, run, run_logged, tethered

#: Starts a program through ``tethered`` or ``run`` whose child writes its process number and sleeps.
SLEEPER = "import os, time; open('child', 'w').write(str(os.getpid())); time.sleep(120)"
PARENT = f"""
import sys
from pathlib import Path
from hint_plugins.runs.processes import run
run(["sh", "-c", "{sys.executable} -c \\"$0\\"; true", {SLEEPER!r}], cwd=Path.cwd())
"""


def started(directory, code=PARENT):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=directory, env=environment, stderr=subprocess.PIPE)
    child = directory / "child"
    assert wait_for(lambda: child.exists() and child.read_text())
    return process, int(child.read_text())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_what_a_process_started_ends_with_it(tmp_path, number):
    process, grandchild = started(tmp_path)
    process.send_signal(number)
    process.communicate()
    assert wait_for(lambda: not alive(grandchild))


def test_output_and_status_pass_through(tmp_path):
    with (tmp_path / "log").open("w") as log:
        assert run([sys.executable, "-c", "print('out'); raise SystemExit(3)"], cwd=tmp_path, output=log) == 3
        assert run(["sh", "-c", "kill -9 $$"], cwd=tmp_path, output=log) == 137
        assert run(["no-such-program"], cwd=tmp_path, output=log) == 127
    assert (tmp_path / "log").read_text() == "out\nno-such-program: No such file or directory\n"
    done = subprocess.run(tethered(["cat"]), input="through", capture_output=True, text=True, check=True)
    assert done.stdout == "through"


def test_a_program_that_fails_shows_the_end_of_its_log(tmp_path):
    run_logged(["sh", "-c", "echo first; echo $OMP_NUM_THREADS threads"], tmp_path)
    with pytest.raises(RuntimeError, match=r"sh -c .* ended with status 3 \(.*log\.txt\):\nfirst\n1 threads\nsecond$"):
        run_logged(["sh", "-c", "echo second >&2; exit 3"], tmp_path)


def test_programs_of_other_threads_can_be_ended(tmp_path):
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(run(["sleep", "100"], cwd=tmp_path)))
    thread.start()
    assert wait_for(lambda: not thread.is_alive() or end_all() or not thread.is_alive())
    thread.join()
    assert statuses[0] in (143, -15)


def test_a_signal_before_the_command_begins_ends_it_too():
    """However early it comes: no traceback, and no command left behind."""
    from hint_plugins.runs import tether

    stop = tether._StopSignal()
    stop(15)  # while the command is being started: nothing is raised
    with pytest.raises(tether._Stop):
        stop.arm()
    armed = tether._StopSignal()
    armed.arm()
    with pytest.raises(tether._Stop):
        armed(15)


HOLDER = """
import sys, time
from pathlib import Path
from hint_plugins.runs.locks import hold
hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(120)
"""


@pytest.fixture
def held(request, tmp_path):
    """An output that another process holds."""
    path = tmp_path / "out"
    if request.param == "directory":
        path.mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield path, process
        process.kill()
    locks.release_all()


@pytest.mark.parametrize("held", ["directory"], indirect=True)
def test_a_second_command_on_a_directory_is_refused_until_the_first_is_dead(held):
    path, process = held
    with pytest.raises(InputError, match=f"another command writes to {path}"):
        RunDirectory(path, "study", {}).__enter__()
    process.kill()
    process.wait()
    with RunDirectory(path, "study", {}), RunDirectory(path, "study", {}):  # twice by one process is no conflict
        assert [entry.name for entry in path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("held", ["file"], indirect=True)
def test_a_second_command_on_a_file_is_refused_until_the_first_is_dead(held):
    path, process = held
    with pytest.raises(InputError, match=f"another command writes to {path}"):
        OutputFile(path).take()
    OutputFile(path.with_name("other")).take()
    process.kill()
    process.wait()
    OutputFile(path).take()
    locks.release_all()
    assert list(path.parent.iterdir()) == []
