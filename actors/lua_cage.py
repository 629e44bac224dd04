"""What a process gives up for good before it runs a stranger's script. Standard library only: it runs in the Lua child.

Walls, from inside to outside: the script's whitelist (`lua/sandbox.lua`), Lua's own memory limit, resource limits of
the process, and on Linux (x86-64, AArch64) a seccomp filter: from then on the process can compute, use memory, read and
write the descriptors it has, and exit; every other system call answers EPERM, so there is no file, no network and no
other process for it, whatever user it runs as. Where the kernel offers no seccomp the outer wall is missing, the
others stand. The process dies with its parent, so that no endless loop outlives the server.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import sys

#: system calls that are left: read write close fstat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask
#: rt_sigreturn writev mremap madvise getpid exit gettimeofday sigaltstack futex clock_gettime exit_group getrandom rseq
_CALLS = {
    "x86_64": (
        0xC000003E,
        (0, 1, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15, 20, 25, 28, 39, 60, 96, 131, 202, 228, 231, 318, 334),
    ),
    "aarch64": (
        0xC00000B7,
        (63, 64, 57, 80, 62, 222, 226, 215, 214, 134, 135, 139, 66, 216, 233, 172, 93, 169, 132, 98, 113, 94, 278, 293),
    ),
}
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 1, 22, 38, 2
#: BPF: load a word; jump if equal; return
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _EPERM, _KILL = 0x7FFF0000, 0x00050001, 0x80000000
#: offsets in the filter's input
_NUMBER, _ARCHITECTURE = 0, 4


class _Step(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("value", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.POINTER(_Step))]


def confine(memory_bytes: int, cpu_s: int | None) -> None:
    """Once and for all: at most so much more address space, so many seconds of CPU, and nothing of the outside."""
    limits = [(resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NPROC, 0), (resource.RLIMIT_CORE, 0)]
    limits += [(resource.RLIMIT_NOFILE, 0)]
    used_bytes = _address_space_bytes()
    if used_bytes is not None:
        limits.append((resource.RLIMIT_AS, used_bytes + memory_bytes))
    for what, limit in limits:
        resource.setrlimit(what, (limit, limit))
    if cpu_s is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    if sys.platform == "linux":
        _leave_the_kernel()


def die_with_parent(parent: int) -> None:
    """The process ends when `parent` does, or now if that has happened already. Elsewhere than on Linux: no effect."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _address_space_bytes() -> int | None:
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[0]) * resource.getpagesize()
    except OSError:
        return None


def _leave_the_kernel() -> None:
    known = _CALLS.get(platform.machine())
    if known is None:
        return
    architecture, calls = known
    steps = [_Step(_LOAD, 0, 0, _ARCHITECTURE), _Step(_JUMP_IF_EQUAL, 1, 0, architecture), _Step(_RETURN, 0, 0, _KILL)]
    steps.append(_Step(_LOAD, 0, 0, _NUMBER))
    for call in calls:
        steps += [_Step(_JUMP_IF_EQUAL, 0, 1, call), _Step(_RETURN, 0, 0, _ALLOW)]
    steps.append(_Step(_RETURN, 0, 0, _EPERM))
    program = _Program(len(steps), (_Step * len(steps))(*steps))
    kernel = ctypes.CDLL(None)
    kernel.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    kernel.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)
