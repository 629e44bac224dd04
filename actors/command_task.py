"""Types `core.command` and `core.text`: how executors carry out tasks of plans.

Both return text, which becomes the task's finding. Nobody can write them into a definition of his own
(`kinds.CORE` is closed), and neither fills in templates: what the plan says is taken as it is. The arguments of a
command are never read by a shell: `exec "$@"` hands them on one by one.
"""

from __future__ import annotations

from actors.bash_task import environment, run_process
from actors.work import Work
from orchestrator.errors import PermanentFailure

#: characters of output that are kept, from the end
OUTPUT_MAX = 1024 * 1024


def run_text(work: Work) -> object:
    """`params.text`."""
    return work.own_params.get("text")


def run_command(work: Work) -> object:
    """What `params.argv` prints in the folder `params.cwd`. Raises CommandFailed."""
    argv, folder = work.own_params.get("argv"), work.own_params.get("cwd")
    if not isinstance(argv, list) or not argv or not all(isinstance(each, str) for each in argv):
        raise PermanentFailure("params.argv must be a list of texts")
    if not isinstance(folder, str):
        raise PermanentFailure("params.cwd must be a folder")
    output = work.wait_for(run_process(tuple(argv), environment(work, {}), folder, work.log, OUTPUT_MAX))
    return output.stdout_tail
