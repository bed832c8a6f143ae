"""``make test-py313``: the tests on Debian 13, whose Python is 3.13 and PostgreSQL 17, on Django 6.0 and 6.1.

As root on Debian. A Debian 13 is kept in the folder ``TASKQ_DEBIAN13`` (/var/tmp/taskq-debian13), made on the first
run and made anew when that run did not finish. Each run copies the checkout into it and tests the copy there, as an
ordinary user: everything but the browser tests on SQLite, then on PostgreSQL what talks to the database. Arguments go
to pytest, every time.

What is mounted (/proc, /dev/pts, /dev/shm; nothing of the host's files) is mounted in a mount namespace of the one
command that needs it. The kernel drops it with that command, however that ends, and the host never sees it, so
that removing the folder can reach nothing outside. Only the standard library is used here: any Python will do.
"""

from __future__ import annotations

import ast
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

CHECKOUT = Path(__file__).resolve().parent.parent
FOLDER = Path(os.environ.get("TASKQ_DEBIAN13") or "/var/tmp/taskq-debian13").absolute()
MARK = FOLDER / ".taskq-debian13"  # says that the folder is ours; holds COMPLETE once it is ready for use
COMPLETE = "complete: 1\n"  # raise the number when what is installed below changes
SUITE = "trixie"
MIRROR = "http://deb.debian.org/debian"  # when apt's own cannot be told
BASE = "ca-certificates,git,make,python3,python3-venv,tzdata"

USER = "tester"
HOME = f"/home/{USER}"
EXTRAS = "env,postgres,redis,schedules"
DJANGOS = {"6.0": "Django>=6.0,<6.1", "6.1": "Django>=6.1,<6.2"}
DATABASES = {"sqlite": "not browser", "postgresql": "database"}
PROCESSES = "3"
# The settings of pip that say where packages come from.
SOURCES = {
    "cert",
    "default-timeout",
    "extra-index-url",
    "find-links",
    "index-url",
    "no-index",
    "proxy",
    "retries",
    "timeout",
    "trusted-host",
}
NO_TESTS = 5  # pytest's exit code when nothing was selected

# Process 1 of its own small world: when it goes, the kernel ends what is left of the others.
INSIDE = """
mount -t proc proc "$1/proc" &&
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$1/dev/pts" &&
ln -sf pts/ptmx "$1/dev/ptmx" &&
mount -t tmpfs -o mode=1777 tmpfs "$1/dev/shm" || exit 1
folder="$1" account="$2"
shift 2
chroot --userspec="$account" --groups= "$folder" "$@"
exit $?
"""
NAMESPACE = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]


def die(text: str) -> NoReturn:
    sys.exit(f"make test-py313: {text}")


def say(text: str) -> None:
    print(f"\n*** {text}", flush=True)


def run(command: list[str], env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run it, show what it prints, and return its exit code and its last line. It does not outlive us."""
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
    )
    assert process.stdout
    last = ""
    try:
        for line in process.stdout:
            text = line.decode(errors="replace")
            print(text, end="", flush=True)
            last = text.strip() or last
        return process.wait(), last
    except KeyboardInterrupt:
        # It has reached the tests too: they have a moment to stop their servers.
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            pass
        raise
    finally:
        process.kill()
        process.wait()


def inside(*command: str, account: str = USER, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run it in the folder, where it sees that Debian and nothing else."""
    own = {"HOME": HOME if account == USER else "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    return run([*NAMESPACE, "sh", "-c", INSIDE, "sh", str(FOLDER), f"{account}:{account}", *command], own | (env or {}))


def must(done: tuple[int, str], what: str) -> None:
    if done[0] != 0:
        die(f"{what} failed (exit code {done[0]}).")


# The Debian in the folder.


def apt_mirror() -> str:
    """The mirror from which this machine's own release comes."""
    release = Path("/etc/os-release").read_text()
    codename = (re.search(r"^VERSION_CODENAME=(\w+)", release, re.MULTILINE) or ["", ""])[1]
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for text in [file.read_text() for file in files if file.suffix in {".list", ".sources"} and file.exists()]:
        for uri, suite in re.findall(r"^deb\s+(?:\[.*?\]\s+)?(\S+)\s+(\S+)", text, re.MULTILINE):
            if suite == codename:
                return str(uri)
        for paragraph in re.split(r"\n\s*\n", text):
            fields = dict(re.findall(r"^(\w+):[ \t]*(.*)$", paragraph, re.MULTILINE))
            if codename in fields.get("Suites", "").split() and fields.get("URIs"):
                return str(fields["URIs"].split()[0])
    return MIRROR


def remove_folder() -> None:
    """Remove what a run that did not finish has left, and nothing else."""
    if not FOLDER.exists() or not any(FOLDER.iterdir()):
        return
    if not MARK.exists():
        die(f"{FOLDER} is not empty and was not made here. Name another folder in TASKQ_DEBIAN13.")
    for mounted in sorted(mounts_below(FOLDER), reverse=True):
        subprocess.call(["umount", mounted])
    if left := mounts_below(FOLDER):
        die(f"not removed, because something is mounted there: {', '.join(left)}")
    subprocess.check_call(["rm", "-rf", "--one-file-system", str(FOLDER)])


def mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    points = [line.split()[1].encode().decode("unicode_escape") for line in lines]
    return [point for point in points if Path(point).is_relative_to(folder.resolve())]


def make_folder() -> None:
    if MARK.exists() and MARK.read_text() == COMPLETE:
        return
    remove_folder()
    install_debootstrap()
    mirror = apt_mirror()
    say(f"Making a Debian 13 in {FOLDER} from {mirror}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    MARK.write_text("half-made\n")
    bootstrap = ["debootstrap", "--variant=minbase", f"--include={BASE}", SUITE, str(FOLDER), mirror]
    must(run([*NAMESPACE, "--mount-proc", *bootstrap]), "debootstrap")
    policy = FOLDER / "usr/sbin/policy-rc.d"  # installing PostgreSQL shall not start one
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    quiet = network() | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-q", "-y", "--no-install-recommends", "postgresql"]
    must(inside(*install, account="root", env=quiet), "installing PostgreSQL")
    must(inside("useradd", "--create-home", USER, account="root"), f"adding the user {USER}")
    must(inside("apt-get", "clean", account="root"), "apt-get clean")
    MARK.write_text(COMPLETE)


def install_debootstrap() -> None:
    if shutil.which("debootstrap"):
        return
    say("Installing debootstrap")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-q", "-y", "--no-install-recommends", "debootstrap"]
    if run(install, environment)[0] != 0:
        must(run(["apt-get", "update", "-q"], environment), "apt-get update")
        must(run(install, environment), "installing debootstrap")


# The checkout and its environments in there.


def copy_checkout() -> None:
    """What git has, and what it would add: no environment, no cache, no database."""
    # safe.directory: under sudo the checkout belongs to somebody else.
    listing = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=CHECKOUT, check=True, capture_output=True).stdout.split(b"\0")
    copy = FOLDER / HOME[1:] / "checkout"
    shutil.rmtree(copy, ignore_errors=True)
    for name in sorted({os.fsdecode(name) for name in names if name}):
        source, target = CHECKOUT / name, copy / name
        if os.path.lexists(source):  # git still lists what was removed and not committed
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    must(inside("find", "/tmp", "-mindepth", "1", "-delete", account="root"), "emptying /tmp")
    must(inside("chown", "-R", f"{USER}:{USER}", f"{HOME}/checkout", account="root"), "chown")


def network() -> dict[str, str]:
    """The proxies that this machine uses."""
    names = {"http_proxy", "https_proxy", "no_proxy", "all_proxy"}
    return {name: value for name, value in os.environ.items() if name.lower() in names}


def pip_environment() -> dict[str, str]:
    """Where pip gets packages from by this machine's configuration, as variables that mean the same in the folder.

    A certificate is copied. Directories of this machine, as indexes or links, cannot be seen from there: left out.
    """
    listing = [sys.executable, "-m", "pip", "config", "list"]
    answer = subprocess.run(listing, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        print(f"{sys.executable} has no pip to ask for its configuration: going on without one", flush=True)
    # Sorted by pip, so that `install` follows `global`; but the environment comes first, and overrules both.
    lines = sorted(answer.stdout.splitlines(), key=lambda line: line.startswith(":env:"))
    found: dict[str, str] = {}
    for name, value in re.findall(r"^(?:global|install|:env:)\.([\w-]+)=(.*)$", "\n".join(lines), re.MULTILINE):
        if name in SOURCES:
            found[name] = " ".join(word for word in ast.literal_eval(value).split() if _can_be_seen(name, word))
    if certificate := found.pop("cert", "") or os.environ.get("REQUESTS_CA_BUNDLE"):
        shutil.copy(certificate, FOLDER / "etc/ssl/pip-cert.pem")
        found["cert"] = "/etc/ssl/pip-cert.pem"
    return network() | {f"PIP_{name.upper().replace('-', '_')}": value for name, value in found.items() if value}


def _can_be_seen(name: str, word: str) -> bool:
    if name == "cert" or not word.startswith(("file:", "/", "~", ".")):
        return True
    print(f"pip's {name} {word} is a place on this machine: left out", flush=True)
    return False


def install(django: str, pip: dict[str, str]) -> str:
    """The Python of an environment with that Django."""
    python = f"{HOME}/django-{django}/bin/python"
    if not (FOLDER / python[1:]).is_symlink():
        must(inside("python3", "-m", "venv", f"{HOME}/django-{django}"), "making an environment")
    say(f"Installing for Django {django}")
    quiet = ["install", "--quiet", "--disable-pip-version-check"]
    must(inside(python, "-m", "pip", *quiet, "--upgrade", "pip>=25.1", env=pip), "installing pip")
    wanted = ["--editable", f"{HOME}/checkout[{EXTRAS}]", "--group", f"{HOME}/checkout/pyproject.toml:test"]
    must(inside(python, "-m", "pip", *quiet, *wanted, DJANGOS[django], env=pip), "installing the package")
    return python


def run_tests(python: str, database: str, arguments: list[str]) -> tuple[int, str]:
    environment = {"CI": "true", "TASKQ_TEST_DB": database, "PYTHONDONTWRITEBYTECODE": "1"}
    options = ["-n", PROCESSES, "-m", DATABASES[database], *arguments]
    change = ["env", f"--chdir={HOME}/checkout"]
    return inside(*change, python, "-m", "pytest", *options, env=environment)


def main(arguments: list[str]) -> int:
    if os.geteuid() != 0 or not os.path.exists("/etc/debian_version"):
        die("it needs root, on Debian: it makes a Debian 13 with debootstrap.")
    if FOLDER.is_relative_to(CHECKOUT):
        die(f"{FOLDER} lies in the checkout: name another in TASKQ_DEBIAN13.")
    signal.signal(signal.SIGTERM, lambda *args: sys.exit(128 + signal.SIGTERM))
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with FOLDER.with_name(FOLDER.name + ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            die(f"another run is using {FOLDER}.")
        return test(arguments)


def test(arguments: list[str]) -> int:
    make_folder()
    for name in ("resolv.conf", "hosts"):
        shutil.copy(f"/etc/{name}", FOLDER / "etc" / name)
    copy_checkout()
    pip = pip_environment()
    summary, codes = [], []
    for django in DJANGOS:
        python = install(django, pip)
        _, versions = inside(python, "-c", "import django, sys; print(sys.version.split()[0], django.__version__)")
        for database in DATABASES:
            say(f"Python and Django {versions} on {database}")
            code, last = run_tests(python, database, arguments)
            codes.append(code)
            outcome = "passed" if code == 0 else "nothing selected" if code == NO_TESTS else f"FAILED ({code})"
            where = f"Python and Django {versions} on {database}"
            summary.append(f"{where:45} {outcome}: {last.strip('= ')}")
    say("Summary\n" + "\n".join(summary))
    failed = [code for code in codes if code not in (0, NO_TESTS)]
    return max(failed) if failed else min(codes)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
