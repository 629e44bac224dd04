"""What a command of a bundle finds: the files of the bundle in its working directory, and its packages on its paths.

Each attempt has a copy of its own, which goes with it. Commands write where they are, and two of them at a time must
neither meet nor change what others run: a copy of a few files takes a millisecond, one of the largest bundle there may
be a few tenths of a second.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class BundleCode:
    """A bundle on this node."""

    #: its files, unpacked
    folder: str
    #: what its requirements ask for, installed; "" = they ask for nothing
    packages: str = ""
    #: the operator's own
    code_dirs: tuple[str, ...] = ()

    def lay_out(self, scratch: str) -> None:
        """Its files are in that folder, which exists. Raises OSError."""
        byte_code = shutil.ignore_patterns("__pycache__")
        shutil.copytree(
            self.folder, scratch, ignore=byte_code, copy_function=shutil.copy,
            ignore_dangling_symlinks=True, dirs_exist_ok=True,
        )  # fmt: skip

    def paths(self, scratch: str, environ: Mapping[str, str]) -> dict[str, str]:
        """Variables of a command that runs in `scratch`, over those of `environ`: programs and modules of the bundle
        come before others, and `python` is the one that its packages were installed for.
        """
        programs = [str(Path(self.packages, "bin"))] if self.packages else []
        modules = [self.packages] if self.packages else []
        return {
            "PATH": _joined([*programs, str(Path(sys.executable).parent)], environ.get("PATH", os.defpath)),
            "PYTHONPATH": _joined([*modules, scratch, *self.code_dirs], environ.get("PYTHONPATH", "")),
        }


def _joined(first: list[str], others: str) -> str:
    return os.pathsep.join([*first, *filter(None, others.split(os.pathsep))])
