"""A real Slurm of two nodes on this machine, in a folder of its own, for as long as it is needed.

    python tests/cluster/slurm_cluster.py    # up until Ctrl-C; prints what to set to use it

Ports, keys, sockets, logs and configuration are its own: nothing is written to /etc, no service is
touched, and it does not matter who the user is. Daemons die with the process that started them.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

NODES = ("node1", "node2")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "setpriv")
SEARCH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
_WAIT = 60  # seconds


def reason_not_to() -> str:
    """Why no cluster can be started here, or nothing."""
    if not sys.platform.startswith("linux"):
        return "Slurm needs Linux"
    if os.environ.get("SLURM_CONF") or Path("/etc/slurm/slurm.conf").exists():
        return "this machine belongs to a Slurm cluster already"
    missing = [program for program in PROGRAMS if shutil.which(program, path=SEARCH) is None]
    return f"no {', '.join(missing)}: run tests/cluster/install.sh as root" if missing else ""


@contextmanager
def cluster() -> Iterator[dict[str, str]]:
    """Start a cluster, yield the environment that leads to it, and end it and all its jobs."""
    # Not pytest's folder: munge wants one that others may enter, and short names of sockets.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    environment = _environment(folder)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        _configure(folder)
        stack.callback(_end_stray, environment["SLURM_CONF"])
        munge = [f"--{name}={folder}/munge.{name.split('-')[0]}" for name in _MUNGE]
        stack.enter_context(_daemon(folder, environment, "munged", "--foreground", *munge))
        _until(lambda: (folder / "munge.socket").exists(), folder, "munged does not answer")
        stack.enter_context(_daemon(folder, environment, "slurmctld", "-D"))
        for node in NODES:
            stack.enter_context(_daemon(folder, environment, "slurmd", "-D", "-N", node))
        stack.callback(_cancel_all, environment)
        _until(lambda: _idle(environment) == len(NODES), folder, "the nodes do not come up")
        yield environment


_MUNGE = ("key-file", "socket", "pid-file", "log-file", "seed-file")


def _environment(folder: Path) -> dict[str, str]:
    """Ours, without a trace of any other cluster."""
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("SLURM_", "SBATCH_", "SRUN_"))
    }
    # The plugin hides SLURM_CONF from srun; this srun finds it again.
    programs = folder / "bin"
    programs.mkdir()
    srun = programs / "srun"
    real = shutil.which("srun", path=SEARCH)
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {real} "$@"\n')
    srun.chmod(0o755)
    return inherited | {"SLURM_CONF": f"{folder}/slurm.conf", "PATH": f"{programs}:{SEARCH}"}


def _configure(folder: Path) -> None:
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    for name in ("state", *NODES):
        (folder / name).mkdir()
    user = psutil.Process().username()
    controller, *nodes = _free_ports(1 + len(NODES))
    lines = [
        "ClusterName=test",
        "SlurmctldHost=localhost",
        f"SlurmctldPort={controller}",
        f"SlurmUser={user}",
        f"SlurmdUser={user}",
        f"AuthInfo=socket={folder}/munge.socket",
        "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny",  # loopback only
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/%n",
        f"SlurmctldPidFile={folder}/slurmctld.pid",
        f"SlurmdPidFile={folder}/%n.pid",
        "ProctrackType=proctrack/pgid",
        "TaskPlugin=task/none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU_Memory",
        "SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2",
        "SlurmdParameters=config_overrides",  # CPUs and memory are said, not measured
        "KillWait=2",
        "GresTypes=gpu",
        "PartitionName=main Nodes=ALL Default=YES MaxTime=60 LLN=YES",  # use all nodes
        *(
            f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} "
            "CPUs=2 RealMemory=16000 Gres=gpu:1"
            for node, port in zip(NODES, nodes, strict=True)
        ),
    ]
    (folder / "slurm.conf").write_text("\n".join(lines) + "\n")
    # Slurm believes in a GPU where there is a device file.
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def _daemon(
    folder: Path, environment: dict[str, str], program: str, *arguments: str
) -> Iterator[None]:
    path = shutil.which(program, path=SEARCH)
    log = (folder / f"{program}{arguments[-1][-1]}.out").open("wb")
    with log:
        daemon = subprocess.Popen(
            # Whatever ends this process, SIGKILL included, ends the daemon.
            ["setpriv", "--pdeathsig", "TERM", str(path), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        daemon.terminate()
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _idle(environment: dict[str, str]) -> int:
    return _ask(environment, "sinfo", "-h", "-N", "-t", "idle", "-o", "%N").count("node")


def _cancel_all(environment: dict[str, str]) -> None:
    """Jobs before daemons: a job whose node is gone goes on."""
    began = time.monotonic()
    while _ask(environment, "squeue", "-h", "-o", "%i") and time.monotonic() - began < 20:
        _ask(environment, "scancel", "--user", psutil.Process().username())
        time.sleep(0.5)


def _end_stray(configuration: str) -> None:
    """What would not be cancelled: processes that have this cluster in their environment."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("SLURM_CONF") == configuration:
                process.kill()
        except psutil.Error:
            continue


def _ask(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_WAIT)
    return done.stdout


def _until(condition: Callable[[], bool], folder: Path, complaint: str) -> None:
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > _WAIT:
            logs = "".join(path.read_text() for path in sorted(folder.glob("*.out")))
            raise RuntimeError(f"{complaint}:\n{logs}")
        time.sleep(0.1)


if __name__ == "__main__":
    if reason := reason_not_to():
        sys.exit(reason)
    with cluster() as settings:
        programs = settings["PATH"].split(":")[0]
        print(f"export SLURM_CONF={settings['SLURM_CONF']} PATH={programs}:$PATH")
        print("up; Ctrl-C ends it")
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("down")
