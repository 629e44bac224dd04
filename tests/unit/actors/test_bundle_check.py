"""actors.bundle_check: what would fail at a task's first attempt fails at the deploy, with the reason."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from actors.bundle_check import check
from orchestrator.errors import Invalid, Unavailable
from tests.bundle_builders import files

GOOD = "from orchestrator import dag, task\n@task\ndef f(): ...\n@dag\ndef flow():\n    f()\n"


def unpacked(folder: Path, **more: str) -> Path:
    for path, content in more.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return folder


def refusal(folder: Path, limit_s: float = 30.0) -> tuple[str, dict[str, str]]:
    with pytest.raises(Invalid) as refused:
        check(folder, None, (), limit_s)
    return refused.value.message, dict(refused.value.details)


def test_the_dags_at_the_top_are_found_and_nothing_stays_behind(tmp_path: Path) -> None:
    unpacked(tmp_path, **{path: content.decode() for path, content in files().items()})
    before = set(sys.modules)
    (definition,) = check(tmp_path, None, ())
    assert [task.entrypoint for task in definition.tasks] == ["flow:which", "flow:later"]
    assert definition.bundle is None
    assert {"flow", "helper"}.isdisjoint(set(sys.modules) - before)


def test_a_file_that_cannot_be_imported_is_told_with_its_traceback(tmp_path: Path) -> None:
    unpacked(tmp_path, **{"flow.py": "import helper\n", "helper.py": "def f():\n    return 1 / 0\nf()\n"})
    message, details = refusal(tmp_path)
    assert message == "flow.py: ZeroDivisionError: division by zero"
    assert details["traceback"].splitlines()[1:3] == ['  File "flow.py", line 1, in <module>', "    import helper"]
    assert 'File "helper.py", line 2, in f' in details["traceback"]
    assert str(tmp_path) not in message + details["traceback"]


def test_a_missing_module_is_named(tmp_path: Path) -> None:
    message, details = refusal(unpacked(tmp_path, **{"flow.py": "import surely.not_there\n"}))
    assert "module 'surely' is neither in the bundle nor installed: name its package in requirements.txt" in message
    assert "requirements.txt" in details["flow.py"]


def test_a_syntax_error_is_told(tmp_path: Path) -> None:
    message, _ = refusal(unpacked(tmp_path, **{"flow.py": "def f(:\n"}))
    assert message.startswith("flow.py: SyntaxError")


def test_packages_of_the_bundle_are_found(tmp_path: Path) -> None:
    packages = unpacked(tmp_path / "packages", **{"surely_there.py": ""})
    code = unpacked(tmp_path / "code", **{"flow.py": "import surely_there\n" + GOOD})
    assert check(code, packages, ())[0].dag_id == "flow"
    shared = unpacked(tmp_path / "shared", **{"of_the_operator.py": ""})
    (code / "flow.py").write_text("import of_the_operator\n" + GOOD)
    assert check(code, None, (str(shared),))[0].dag_id == "flow"


def test_code_that_is_checked_finds_no_secret_of_the_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ORCHESTRATOR_ADMIN_TOKEN", "ORCHESTRATOR_SECRET_KEY", "REDIS_URL"):
        monkeypatch.setenv(name, "s3cret")
    code = "import os\nassert 's3cret' not in os.environ.values()\n"
    assert check(unpacked(tmp_path, **{"flow.py": code + GOOD}), None, ())


def test_an_entrypoint_that_is_not_there_is_told(tmp_path: Path) -> None:
    lines = (
        "dag_id: d\nowner: me\ntasks:\n  - {id: a, entrypoint: 'lib.steps:f'}\n  - {id: b, entrypoint: 'lib.none:f'}\n"
    )
    unpacked(tmp_path, **{"d.yaml": lines, "lib/steps.py": "g = 1\n"})
    message, details = refusal(tmp_path)
    assert "module 'lib.steps' has no 'f'" in message
    assert "requirements.txt" in details["d/tasks/1/entrypoint"]
    assert set(details) == {"d/tasks/0/entrypoint", "d/tasks/1/entrypoint"}


def test_a_name_that_python_or_an_installed_module_has_is_refused(tmp_path: Path) -> None:
    unpacked(tmp_path, **{"flow.py": GOOD, "lib.py": "", "json/data.txt": "", "tests/of_mine.py": ""})
    assert check(tmp_path, None, ())
    unpacked(tmp_path, **{"json/mine.py": ""})
    message, details = refusal(tmp_path)
    assert message == "names of modules that are taken: json; rename the files"
    assert "'json' is a module of Python" in details["json"]
    (tmp_path / "json" / "mine.py").unlink()
    unpacked(tmp_path, **{"redis.py": GOOD})
    assert "redis.py: its name is taken: module 'redis' is" in refusal(tmp_path)[0]
    (tmp_path / "redis.py").unlink()
    unpacked(tmp_path, **{"flow.py": "import redis\n" + GOOD, "redis/mine.py": ""})
    assert "redis" in refusal(tmp_path)[1]


def test_no_dag_is_an_error(tmp_path: Path) -> None:
    message, _ = refusal(unpacked(tmp_path, **{"lib.py": ""}))
    assert "no DAG found" in message


def test_code_that_does_not_come_to_an_end_is_stopped(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    code = (
        "import os, subprocess, time\n"
        f"child = subprocess.Popen(['sleep', '60']); open({str(mark)!r}, 'w').write(str(child.pid))\ntime.sleep(60)\n"
    )
    began_s = time.monotonic()
    message, _ = refusal(unpacked(tmp_path / "code", **{"flow.py": code}), 1.5)
    assert "not done within 1.5 s" in message
    assert time.monotonic() - began_s < 20
    while _state(int(mark.read_text())) != "Z":  # its children are gone too, once they are reaped
        assert time.monotonic() - began_s < 20
        time.sleep(0.02)


def test_a_machine_without_room_for_it_is_no_fault_of_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unpacked(tmp_path, **{"flow.py": GOOD})

    def none_left(*_: object, **__: object) -> None:
        raise OSError("no space left")

    for what in ("tempfile.TemporaryDirectory", "subprocess.Popen"):
        with monkeypatch.context() as patched:
            patched.setattr(what, none_left)
            with pytest.raises(Unavailable, match="no space left"):
                check(folder, None, ())


def test_it_ends_with_its_server(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    code = f"import os, pathlib, time\npathlib.Path({str(mark)!r}).write_text(str(os.getpid()))\ntime.sleep(60)\n"
    folder = unpacked(tmp_path / "code", **{"flow.py": code})
    asks = f"import pathlib\nfrom actors.bundle_check import check\ncheck(pathlib.Path({str(folder)!r}), None, ())\n"
    with subprocess.Popen([sys.executable, "-c", asks]) as server:
        deadline = time.monotonic() + 30
        while not (mark.exists() and mark.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        server.kill()
    pid = int(mark.read_text())
    try:
        while _state(pid) != "Z":
            assert time.monotonic() < deadline, "nobody ends it any more"
            time.sleep(0.02)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.kill(os.getpid(), 11)", "signal 11"),
        ("print('bye', flush=True); import os; os._exit(3)", "exit code 3"),
        ("raise SystemExit(0)", "SystemExit"),
        ("import sys; sys.exit('enough')", "enough"),
    ],
)
def test_code_that_ends_its_process_is_told(tmp_path: Path, code: str, said: str) -> None:
    message, details = refusal(unpacked(tmp_path, **{"flow.py": code + "\n"}))
    assert said in message
    assert details.get("output") == ("bye" if "bye" in code else None)


def test_of_code_that_prints_without_end_the_last_words_are_told(tmp_path: Path) -> None:
    code = "import os\nfor _ in range(200):\n    print('x' * 100_000)\nprint('ä' * 600, flush=True)\nos._exit(3)\n"
    _, details = refusal(unpacked(tmp_path, **{"flow.py": code}))
    assert details.get("output") == "ä" * 500


def test_code_that_prints_without_end_is_ended_before_it_fills_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.bundle_check.SAID_MAX", 1_000_000)
    began_s = time.monotonic()
    message, details = refusal(unpacked(tmp_path, **{"flow.py": "while True:\n    print('x' * 10_000)\n"}), 30.0)
    assert "it printed more than 1,000,000 bytes" in message
    assert time.monotonic() - began_s < 20
    assert set(details["output"]) <= {"x", "\n"}


def test_what_it_prints_and_starts_does_not_matter(tmp_path: Path) -> None:
    noise = "import threading, time\nprint('{}')\nthreading.Thread(target=time.sleep, args=(60,)).start()\n"
    assert check(unpacked(tmp_path, **{"flow.py": noise + GOOD}), None, (), 30.0)
