"""actors.command_task: commands without a shell, and text as it is."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from actors.artifacts import Artifacts
from actors.command_task import OUTPUT_MAX
from orchestrator.messages import Assignment
from tests.worker_builders import RUN, Bench, InThread, task


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def command(folder: Path, *argv: str) -> Assignment:
    return task("1.1", "core.command", argv=list(argv), cwd=str(folder))


def test_text_is_returned_as_it_is_also_with_templates_in_it(bench: Bench) -> None:
    text = "see {{ from }} and $HOME"
    assert bench.value(task(type="core.text", text=text)) == text


def test_what_a_command_prints_is_its_result_and_its_log(bench: Bench, tmp_path: Path) -> None:
    assert bench.value(command(tmp_path, "printf", "%s\\n", "one", "two")) == "one\ntwo\n"
    assert "one\ntwo\n" in bench.logs.text("1.1")


def test_no_shell_reads_the_arguments(bench: Bench, tmp_path: Path) -> None:
    nasty = "$(touch made) `touch made` ; touch made && {{ run_id }} * 'x\" \\"
    assert bench.value(command(tmp_path, "printf", "%s", nasty)) == nasty
    assert not (tmp_path / "made").exists()


def test_a_command_runs_in_its_folder_and_knows_its_task(bench: Bench, tmp_path: Path) -> None:
    assert bench.value(command(tmp_path, "pwd")) == f"{tmp_path.resolve()}\n"
    told = str(bench.value(command(tmp_path, "env")))
    assert "ORCHESTRATOR_TASK_ID=1.1\n" in told
    assert f"ORCHESTRATOR_RUN_ID={RUN}\n" in told


def test_a_command_that_fails_says_why(bench: Bench, tmp_path: Path) -> None:
    report = bench.run(command(tmp_path, "sh", "-c", "echo no luck >&2; exit 3"))
    assert (report.outcome, report.error, report.permanent) == ("error", "exit code 3: no luck", False)
    absent = bench.run(command(tmp_path, "no-such-tool"))
    assert absent.error is not None
    assert absent.error.startswith("exit code 127")
    nowhere = bench.run(command(tmp_path / "gone", "true"))
    assert (nowhere.outcome, nowhere.permanent) == ("error", True)


def test_of_much_output_the_end_is_kept(bench: Bench, tmp_path: Path) -> None:
    report = bench.run(command(tmp_path, "sh", "-c", f"yes | head -c {OUTPUT_MAX + 4096}; echo; echo end"))
    assert report.outcome == "ok"
    text = Artifacts(tmp_path / "artifacts").read_plain(report.value)
    assert len(text) == OUTPUT_MAX
    assert text.endswith("\nend\n")


def test_a_cancelled_command_is_gone_with_all_it_started(bench: Bench, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    running = InThread(bench.run, command(tmp_path, "sh", "-c", f"sleep 60 & echo $! > {mark}; wait"))
    while not (mark.exists() and mark.read_text().strip()):
        time.sleep(0.01)
    assert bench.worker.cancel(RUN, "1.1", 1, "cancelled")
    assert running.result().outcome == "cancelled"
    deadline = time.monotonic() + 5
    stat = Path(f"/proc/{mark.read_text().strip()}/stat")
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)
