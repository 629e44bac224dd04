"""The smallest DAG: two tasks, the second takes what the first returned.

orchestrator up --detach
python examples/hello_dag.py
"""

import subprocess
import sys
from pathlib import Path

from orchestrator import dag, task


@task
def greeting(name: str) -> str:
    return f"Hello, {name}!"


@task
def say(text: str) -> None:
    print(text)  # what a task prints is kept per attempt: `orchestrator runs logs RUN_ID`


@dag(owner="examples")
def hello(name: str = "world"):
    say(greeting(name))


if __name__ == "__main__":
    orchestrator = Path(sys.executable).with_name("orchestrator")
    subprocess.run([orchestrator, "dags", "deploy", __file__], check=True)
    subprocess.run([orchestrator, "run", "hello", "--param", "name=Ray", "--wait"], check=True)
