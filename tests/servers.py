"""Servers that the tests start for themselves: private, on a free port, in a temporary directory, gone afterwards.

Nothing here touches a server that was already running on the machine. A new kind of server is a subclass of
:class:`Server` that says where its programs are, how to start it and how to see that it answers.
"""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Self

import amqp
import psycopg
import redis

# When this process goes away, in whatever way, its end of the pipe closes and the shell below reads end-of-file.
JANITOR = """
read -r _
[ -e "$1/pid" ] && kill -QUIT "$(cat "$1/pid")" 2>/dev/null && sleep 1
rm -rf "$1" || { sleep 2; rm -rf "$1"; }
"""


class ServerMissing(Exception):
    """A server's programs are not installed; the text names the Debian packages that bring them."""


class ServerFailed(Exception):
    """A server that is installed did not start, stop or answer; the text ends with its log."""


def find_programs(name: str, programs: Iterable[str], packages: Iterable[str], extra: Iterable[Path] = ()) -> Path:
    """The directory that holds all ``programs``: on the PATH, or else the first of ``extra``."""
    first, *_ = programs = list(programs)
    found = shutil.which(first)
    for directory in [*([Path(found).parent] if found else []), *extra]:
        if all(os.access(directory / program, os.X_OK) for program in programs):
            return directory
    raise ServerMissing(f"{name} was not found ({', '.join(programs)}). Debian: apt-get install {' '.join(packages)}")


def free_port() -> int:
    """A port nobody listens on, from below the range the system gives to outgoing connections.

    Inside that range a client that knocks while the server restarts can be handed the very port it knocks at: it
    then connects to itself, and the server cannot have its port back.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


class Server:
    """A server process of ours. Not thread-safe; use it as a context manager or call :meth:`close`.

    Even when the tests are killed with -9, a small shell waiting at the end of a pipe stops it and removes its files.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    stop_signals: ClassVar[dict[str, signal.Signals]]

    def __init__(self) -> None:
        self.programs = self.locate()
        self.port = free_port()
        self.account = self._unprivileged_account()
        self.home = Path(tempfile.mkdtemp(prefix=f"taskq-{self.name.lower()}-"))
        self.log_path = self.home / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._janitor = subprocess.Popen(
            ["/bin/sh", "-c", JANITOR, "janitor", str(self.home)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        if self.account:
            os.chown(self.home, self.account.pw_uid, self.account.pw_gid)
        try:
            self.prepare()
        except BaseException:
            self.close()
            raise

    # What a kind of server says of itself.

    @classmethod
    def locate(cls) -> Path:
        """The directory of its programs, or :exc:`ServerMissing`."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Fill :attr:`home` before the first start."""

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it serves requests now."""
        raise NotImplementedError

    # What all of them do.

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, timeout: float = 30) -> Self:
        """Start it and wait until it answers; harmless when it runs already.

        After a kill -9 the rest of the old server may hold its memory or port for a moment, so a start that dies at
        once is tried again until the time is up.
        """
        deadline = time.monotonic() + timeout
        while True:
            if not self.is_running:
                self._process = self._spawn()
            try:
                self.wait_ready(deadline - time.monotonic())
                return self
            except ServerFailed:
                if self.is_running or time.monotonic() > deadline - timeout / 2:
                    raise
                time.sleep(0.2)

    def wait_ready(self, timeout: float = 30) -> None:
        """Return as soon as it answers; raise :exc:`ServerFailed` when it ends or the time is up."""
        deadline = time.monotonic() + timeout
        while not self.answers():
            if not self.is_running:
                raise ServerFailed(f"{self.name} ended instead of serving.\n{self.log()}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} did not answer within {timeout:.0f} s.\n{self.log()}")
            time.sleep(0.05)

    def stop(self, mode: str = "fast", timeout: float = 30) -> None:
        """Stop it the given way and wait; what does not end in time is killed."""
        if self._process is None:
            return
        self.kill(self.stop_signals[mode])
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill(signal.SIGKILL)
            self._process.wait(timeout)
        self._process = None

    def restart(self, mode: str = "immediate") -> None:
        self.stop(mode)
        self.start()

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """Send a signal to its main process and return at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal_number)

    def close(self) -> None:
        """Stop it and remove its files. Harmless when repeated."""
        self.stop("immediate")
        self._janitor.communicate()

    def log(self, lines: int = 40) -> str:
        """The end of its log."""
        if not self.log_path.exists():
            return "(no log)"
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def run(self, *command: str) -> None:
        """Run one of its programs to the end, as its account."""
        with self.log_path.open("ab") as log:
            code = subprocess.call(command, stdout=log, stderr=subprocess.STDOUT, **self._process_options())
        if code != 0:
            raise ServerFailed(f"{' '.join(command)} ended with {code}.\n{self.log()}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            process = subprocess.Popen(
                self.command(),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal is for the tests, not for their server
                **self._process_options(),
            )
        (self.home / "pid").write_text(str(process.pid))
        return process

    def _process_options(self) -> dict[str, Any]:
        # The directory of the tests may be closed to the account, so everything runs in its own.
        options: dict[str, Any] = {"cwd": self.home, "stdin": subprocess.DEVNULL}
        if self.account:
            options |= {"user": self.account.pw_uid, "group": self.account.pw_gid, "extra_groups": []}
        return options

    @staticmethod
    def _unprivileged_account() -> pwd.struct_passwd | None:
        """Whom to become when the tests run as root: initdb and others refuse root."""
        if os.geteuid() != 0:
            return None
        for name in ("postgres", "nobody"):
            try:
                return pwd.getpwnam(name)
            except KeyError:
                continue
        raise ServerFailed("The tests run as root and found no account to run servers as (postgres or nobody).")


class PostgresServer(Server):
    """A PostgreSQL with its default settings (durable commits included) that trusts every local connection."""

    name = "PostgreSQL"
    packages = ("postgresql",)
    stop_signals = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

    @classmethod
    def locate(cls) -> Path:
        candidates = []
        if pg_config := shutil.which("pg_config"):
            answer = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
            candidates.append(Path(answer.stdout.strip()))
        installed = Path("/usr/lib/postgresql").glob("*/bin")
        candidates += sorted(installed, key=lambda path: int("0" + path.parent.name.partition(".")[0]), reverse=True)
        return find_programs(cls.name, ["initdb", "postgres"], cls.packages, candidates)

    @property
    def params(self) -> dict[str, str]:
        """What goes into one alias of Django's DATABASES."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "USER": "postgres",
            "PASSWORD": "",
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
        }

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def prepare(self) -> None:
        data = str(self.home / "data")
        options = ["--username=postgres", "--auth=trust", "--no-locale", "--encoding=UTF8", "--no-sync"]
        self.run(str(self.programs / "initdb"), "--pgdata", data, *options)

    def command(self) -> list[str]:
        home = str(self.home)
        listen = ["-c", "listen_addresses=127.0.0.1", "-c", f"port={self.port}", "-k", home]
        return [str(self.programs / "postgres"), "-D", str(self.home / "data"), *listen]

    def answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


class RabbitMQServer(Server):
    """A RabbitMQ node of its own, in plain text and over TLS, for the user guest. Nothing of the machine's is read.

    The Erlang port mapper is one for the whole machine: it is started when none runs, and stays.
    """

    name = "RabbitMQ"
    packages = ("rabbitmq-server", "openssl")
    # Killed and halted are the same to it: what was confirmed is on disk.
    stop_signals = {"smart": signal.SIGTERM, "fast": signal.SIGTERM, "immediate": signal.SIGKILL}

    @classmethod
    def locate(cls) -> Path:
        find_programs(cls.name, ["openssl"], cls.packages)
        # Not what is on the PATH: as root, Debian's wrapper there becomes another user and uses the machine's node.
        candidates = [Path("/usr/lib/rabbitmq/bin"), Path("/usr/local/sbin"), Path("/opt/homebrew/sbin")]
        for directory in candidates:
            if all(os.access(directory / program, os.X_OK) for program in ("rabbitmq-server", "rabbitmqctl")):
                return directory
        raise ServerMissing(f"{cls.name} was not found. Debian: apt-get install {' '.join(cls.packages)}")

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def tls_url(self) -> str:
        """With a certificate for localhost that nobody but :attr:`certificate` vouches for."""
        return f"amqps://guest:guest@localhost:{self.tls_port}//"

    @property
    def certificate(self) -> Path:
        return self.home / "certificate.pem"

    def prepare(self) -> None:
        self.tls_port, self.distribution_port = free_port(), free_port()
        key = self.home / "key.pem"
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
        files = ["-keyout", str(key), "-out", str(self.certificate)]
        self.run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, *files)
        (self.home / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}\n"
            f"ssl_options.certfile = {self.certificate}\n"
            f"ssl_options.keyfile = {key}\n"
            "ssl_options.verify = verify_none\n"
            "vm_memory_high_watermark.absolute = 1GB\n"
            "disk_free_limit.absolute = 1MB\n"
            "log.console = true\nlog.console.level = info\nlog.file = false\n"
        )
        (self.home / "enabled_plugins").write_text("[].\n")
        (self.home / "environment").write_text("")

    def command(self) -> list[str]:
        return [str(self.programs / "rabbitmq-server")]

    def answers(self) -> bool:
        connection = amqp.Connection(f"127.0.0.1:{self.port}", connect_timeout=2, login_method="PLAIN")
        try:
            connection.connect()
        except (OSError, amqp.AMQPError):
            return False
        finally:
            connection.collect()  # it leaves its socket open when the server refuses
        return True

    def ctl(self, *arguments: str) -> None:
        """Run ``rabbitmqctl`` for this node; it takes about a second."""
        self.run(str(self.programs / "rabbitmqctl"), "--quiet", *arguments)

    def _process_options(self) -> dict[str, Any]:
        home = str(self.home)
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": home,  # where Erlang keeps its cookie
            "LANG": "C.UTF-8",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RUNNING_UNDER_SYSTEMD": "true",  # become the server, do not watch over it from a shell
            "RABBITMQ_NODENAME": f"taskq-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_CONF_ENV_FILE": f"{home}/environment",
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{home}/data",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{home}/generated",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }
        return super()._process_options() | {"env": environment}


class RedisServer(Server):
    """A Redis that answers on a port and on a socket of its own. By default it keeps nothing; ``config`` changes that.

    Its data outlives a kill and a restart; with ``DURABLE`` nothing that was answered is lost by either.
    """

    name = "Redis"
    packages = ("redis-server",)
    stop_signals = {"fast": signal.SIGTERM, "immediate": signal.SIGKILL}
    DURABLE: ClassVar[dict[str, str]] = {"appendonly": "yes", "appendfsync": "always"}

    def __init__(self, config: dict[str, str] | None = None, *, password: str = "") -> None:
        self.config = config or {}
        self.password = password
        super().__init__()

    @classmethod
    def locate(cls) -> Path:
        return find_programs(cls.name, ["redis-server"], cls.packages, [Path("/usr/sbin"), Path("/usr/local/bin")])

    @property
    def url(self) -> str:
        secret = f":{self.password}@" if self.password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/0"

    @property
    def socket_path(self) -> Path:
        return self.home / "redis.sock"

    def command(self) -> list[str]:
        home = str(self.home)
        settings = {"port": str(self.port), "bind": "127.0.0.1", "unixsocket": str(self.socket_path), "dir": home}
        settings |= {"save": ""} | ({"requirepass": self.password} if self.password else {}) | self.config
        return [
            str(self.programs / "redis-server"),
            *(word for key in settings for word in (f"--{key}", settings[key])),
        ]

    def client(self) -> redis.Redis:
        """A client for a test to look at what is there, and to break it."""
        return redis.Redis(port=self.port, password=self.password or None, decode_responses=True, socket_timeout=10)

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except (redis.RedisError, OSError):
            return False


class Chromium:
    """The browser of the browser tests: not a server, but found, missed and installed like one."""

    name = "Chromium"
    packages = ("chromium", "chromium-driver")

    @classmethod
    def locate(cls) -> Path:
        return find_programs(cls.name, ["chromium", "chromedriver"], cls.packages)


KINDS: tuple[type[Server] | type[Chromium], ...] = (PostgresServer, RabbitMQServer, RedisServer, Chromium)


def missing() -> dict[str, str]:
    """Every kind that is not installed on this machine, by name, with the error that says what to install."""
    found = {}
    for kind in KINDS:
        try:
            kind.locate()
        except ServerMissing as error:
            found[kind.name] = str(error)
    return found
