"""Run the command, or import every module, without the POSIX names that Windows lacks.

`python -m tests.cli.without_posix demo` is `trio-runner demo` with those names missing from `os`,
`signal`, `socket` and `select`. `import-all` imports the package module by module.

This can show that no module of the package needs such a name, neither when it is imported nor in
the code that the test runs. Only the package's own imports get the reduced modules, since Trio and
the standard library need the names on the POSIX system that this runs on. It cannot show where
Windows behaves differently under the same name, as with open files, signals, file names and
consoles. Nor does it change `sys.platform`, so code that asks for that sees the real system.
"""

import builtins
import importlib
import os
import pkgutil
import select
import signal
import socket
import sys
from types import ModuleType
from typing import Any

# Each is marked `sys.platform != "win32"` in typeshed, or "Availability: Unix" in Python's docs.
POSIX_ONLY = {
    os: """
        chown chroot confstr ctermid fchdir fchown fdatasync fork forkpty getegid geteuid getgid
        getgroups getloadavg getpgid getpgrp getpriority getsid getuid initgroups killpg lchown
        lockf major makedev minor mkfifo mknod nice openpty pathconf posix_fallocate posix_spawn
        pread preadv pwrite pwritev readv register_at_fork sched_getaffinity sched_yield sendfile
        setegid seteuid setgid setgroups setpgid setpriority setregid setresuid setsid setuid
        statvfs sync sysconf tcgetpgrp tcsetpgrp ttyname uname wait wait3 wait4 waitid writev
        EX_OK EX_USAGE F_LOCK O_ASYNC O_CLOEXEC O_DIRECT O_DIRECTORY O_DSYNC O_NOATIME O_NOCTTY
        O_NOFOLLOW O_NONBLOCK O_PATH O_SYNC P_PGID WEXITSTATUS WIFEXITED WIFSIGNALED WNOHANG
        WTERMSIG""",
    signal: """
        ITIMER_REAL SIGALRM SIGBUS SIGCHLD SIGCONT SIGHUP SIGIO SIGKILL SIGPIPE SIGPROF SIGQUIT
        SIGRTMIN SIGSTOP SIGSYS SIGTRAP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGUSR1 SIGUSR2 SIGVTALRM
        SIGWINCH SIGXCPU SIGXFSZ SIG_BLOCK SIG_SETMASK SIG_UNBLOCK alarm getitimer pause
        pthread_kill pthread_sigmask setitimer siginterrupt sigpending sigtimedwait sigwait
        sigwaitinfo""",
    socket: """
        AF_NETLINK AF_PACKET AF_UNIX CMSG_LEN CMSG_SPACE MSG_DONTWAIT MSG_EOR MSG_NOSIGNAL
        SCM_RIGHTS SO_BINDTODEVICE SO_DOMAIN SO_PEERCRED SO_REUSEPORT TCP_CORK TCP_QUICKACK
        TCP_USER_TIMEOUT if_nameindex recv_fds send_fds sethostname""",
    select: "EPOLLIN EPOLLOUT POLLIN POLLOUT PIPE_BUF devpoll epoll kevent kqueue poll",
}


def poorer(module: ModuleType, names: str) -> ModuleType:
    """Return a module like this one without these names."""
    copy = ModuleType(module.__name__, module.__doc__)
    gone = set(names.split())
    copy.__dict__.update({name: it for name, it in vars(module).items() if name not in gone})
    return copy


def take_away() -> None:
    """Give the reduced modules to every module of the package that is imported from now on."""
    instead = {module.__name__: poorer(module, names) for module, names in POSIX_ONLY.items()}
    as_usual = builtins.__import__

    def import_(*arguments: Any, **named: Any) -> ModuleType:
        module = as_usual(*arguments, **named)
        within = arguments[1] if len(arguments) > 1 else named.get("globals")
        importer = str((within or {}).get("__name__"))
        is_ours = importer.partition(".")[0] == "trio_runner"
        return instead.get(module.__name__, module) if is_ours else module

    vars(builtins)["__import__"] = import_


def import_all() -> None:
    """Import every module, except those of Open Pectus where that is not installed."""
    import trio_runner

    for found in pkgutil.walk_packages(trio_runner.__path__, "trio_runner.", onerror=missing):
        if found.name != "trio_runner.__main__":
            try:
                importlib.import_module(found.name)
            except ImportError:
                missing(found.name)
        print(found.name)  # noqa: T201


def missing(name: str) -> None:
    """Ignore the bridge without Open Pectus; raise any other error that is being handled."""
    error = sys.exception()
    assert error is not None
    its_own = isinstance(error, ModuleNotFoundError) and str(error.name).startswith("trio_runner")
    if its_own or not name.startswith("trio_runner.bridge"):
        raise error


def main() -> int:
    """Carry out `import-all`, or do what the command does with these arguments."""
    assert not [name for name in sys.modules if name.startswith("trio_runner")]
    take_away()
    if sys.argv[1:] == ["import-all"]:
        import_all()
        return 0
    from trio_runner import _cli

    assert not hasattr(vars(_cli)["signal"], "SIGKILL"), "nothing was taken away"
    return _cli.main()


if __name__ == "__main__":
    sys.exit(main())
