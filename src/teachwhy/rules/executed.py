"""A third reading of a step, for those on which the first two differ: its commands are run, with harmless stand-ins for every program.

In a bubblewrap sandbox without network and without the user's files, every word that could be a program is a script that writes down its
words, its environment and what it is fed, and does nothing else. Shells, filters of text and programs that run others are real. Each
command is run twice, once with all programs succeeding and once failing, so that both sides of && and || are seen.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import IO, Any

from teachwhy.rules.checks import SILENT, Check, Reading, Step, decide
from teachwhy.rules.commands import Command

RUNNERS = frozenset(["env", "xargs", "nohup", "nice", "ionice", "setsid", "timeout", "stdbuf"])
SHELLS = frozenset(["sh", "bash", "zsh", "dash", "ksh"])
FILTERS = frozenset(["cat", "head", "tail", "tr", "cut", "sort", "uniq", "wc", "tee", "seq", "basename", "dirname", "date"])
ELSEWHERE = re.compile(r"\b(?:docker|podman|kubectl|nerdctl)\b")
"""What is run in a container cannot be seen from here."""
MOST_NAMES = 400
MOST_LOGGED = 2000
MOST_BYTES = 200_000
"""Commands of one text that are read, and bytes of each: what goes beyond is not run to its end."""
SECONDS = 5
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_PATH = re.compile(r"(?<![\w/:~$.>-])(?:\.{1,2}/)*(?:[\w.-]+/)*[\w.-]+")
_WRITTEN = re.compile(r">\s*([\w./-]+)")
_OURS = frozenset(["PATH", "HOME", "PWD", "OLDPWD", "SHLVL", "_", "STANDIN_CODE", "BASH_ENV"])
BEGIN = r"""shopt -s expand_aliases
_place() {
  local path
  while read -r path; do
    case $path in */) /.real/mkdir -p "$path" ;; */*) /.real/mkdir -p "${path%/*}" ;; esac
    [[ $path == */ || $path == *activate || -e $path ]] || /.real/ln -s /.stand-in/run "$path"
  done < /.stand-in/paths
} 2>/dev/null
cd() { [[ $# -gt 0 && ${@: -1} != - ]] && /.real/mkdir -p -- "${@: -1}"; builtin cd "$@"; _place; return 0; } 2>/dev/null
pushd() { /.real/mkdir -p -- "${@: -1}"; builtin pushd "$@"; _place; return 0; } >/dev/null 2>&1
source() { return 0; }
"""
"""What every shell reads first: folders are there as soon as somebody goes into them, and so are programs that are named with a path."""
SHELL = """#!/.real/bash
exec -a bash /.real/bash "$@"
"""
STAND_IN = r"""#!/.real/bash --norc
name=${0##*/}
clean=(/.real/env -i PATH=/bin HOME=/work BASH_ENV=/.stand-in/begin STANDIN_CODE="$STANDIN_CODE")
case $name in
sudo|doas)
  keep=
  while [[ ${1-} == -* ]]; do case $1 in -u|-g|-p|-C|-h) shift 2 ;; -E|--preserve-env*) keep=1; shift ;; *) shift ;; esac; done
  if [[ $keep ]]; then exec /.real/env "$@"; fi
  exec "${clean[@]}" "$@" ;;
ssh)
  while [[ ${1-} == -* ]]; do case $1 in -[bcDEeFIiJLlmOopQRSWw]) shift 2 ;; *) shift ;; esac; done
  shift
  if (($#)); then exec "${clean[@]}" /.real/bash -c "$*"; fi ;;
esac
piped=; hidden=; fed=
[[ -p /dev/stdin ]] && piped=1
[[ /dev/stdout -ef /dev/null || ( $name == cat && -f /dev/stdout ) ]] && hidden=1
file=$(/.real/mktemp /log/$EPOCHREALTIME.XXXXXX)
before=
for word in "$@" ''; do
  case $before in --file|--template|-[a-zA-Z]*F|-F|-t) [[ $name == git && -f $word ]] && fed=$(<"$word") ;; esac
  case $word in
  --file=-|-F-) before=-F; word=- ;;
  --file=*) [[ $name == git && -f ${word#*=} ]] && fed=$(<"${word#*=}") ;;
  esac
  if [[ $word == - || $word == /dev/stdin ]]; then fed=$(/.real/timeout 1 /.real/head -c 65536 | /.real/tr -d '\0'); fi
  before=$word
done
{ printf '%s\0' "$piped" "$hidden" "$fed" "$#" "$name" "$@"; /.real/env -0; } >"$file"
case " FILTERS " in *" $name "*) exec /.real/"$name" "$@" ;; esac
echo x
exit "$STANDIN_CODE"
""".replace("FILTERS", " ".join(sorted(FILTERS)))


def find_sandbox() -> str:
    """The path of bubblewrap, if it is there and works on this machine; else empty."""
    return _find()[0]


@cache
def _find() -> tuple[str, dict[str, Any]]:
    """Bubblewrap, and as whom it works: for root as nobody where that may be, since root's processes are not counted and a limit on their
    number would be none."""
    path = shutil.which("bwrap") or ""
    nobody: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []}
    for who in (nobody, {}) if os.geteuid() == 0 else ({},):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            if path and _run((path, who), Path(folder), "git status", 0):
                return path, who
    return "", {}


def is_bounded() -> bool:
    """Whether the number of its processes is."""
    return bool(_find()[1]) or os.geteuid() != 0


def read_executed(check: Check, step: Step, *, approved: bool = False) -> Reading | None:
    """As `checks.read_step`, from what was run. None without a sandbox, or where a command did not end."""
    sandbox = _find()
    if not sandbox[0] or any(ELSEWHERE.search(text) for text in step.bash):
        return None
    found: list[Command] = []
    for text in step.bash:
        for code in (0, 1):
            with tempfile.TemporaryDirectory(prefix="teachwhy-", ignore_cleanup_errors=True) as folder:
                try:
                    commands = _run(sandbox, Path(folder), text, code)
                except (OSError, ValueError):  # whatever a model wrote: the other two readings stand
                    return None
            if commands is None:
                return None
            found += commands
    return decide(check, found, step.message, _prints, approved=approved)


def _prints(command: Command) -> bool:
    return not (command.argv[0] in SILENT or command.argv[:2] == ("git", "add") or command.hidden)


def _run(sandbox: tuple[str, dict[str, Any]], folder: Path, text: str, code: int) -> list[Command] | None:
    """Commands in the order in which they began; None where the sandbox failed, the time was up, or there is more than can be followed."""
    names = {name for name in _NAME.findall(text) if len(name) < 100}
    if len(names) > MOST_NAMES or "\0" in text:
        return None
    programs, log, stand_in = (folder / name for name in ("bin", "log", "stand-in"))
    for path in (programs, log, stand_in):
        path.mkdir()
    folder.chmod(0o755)
    log.chmod(0o777)
    for name, held in (("run", STAND_IN), ("shell", SHELL), ("begin", BEGIN), ("paths", _places(text))):
        (stand_in / name).write_text(held)
        (stand_in / name).chmod(0o755)
    for name in {*names, *RUNNERS, *SHELLS, *FILTERS}:
        target = f"/.real/{name}" if name in RUNNERS else "/.stand-in/shell" if name in SHELLS else "/.stand-in/run"
        (programs / name).symlink_to(target)
    begin = "ulimit -t 5 -f 2000 -v 4000000 -u 100; /.real/mkdir -p .git/hooks; _place"
    words: list[str | Path] = [
        sandbox[0], "--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--setenv", "PATH", "/bin", "--setenv", "HOME",
        "/work", "--setenv", "STANDIN_CODE", str(code), "--setenv", "BASH_ENV", "/.stand-in/begin", "--ro-bind", "/usr/bin", "/.real",
        "--ro-bind", "/usr/lib", "/usr/lib", "--ro-bind-try", "/usr/lib64", "/usr/lib64", *_library("lib"), *_library("lib64"),
        "--ro-bind", programs, "/bin", "--ro-bind", programs, "/usr/bin", "--ro-bind", programs, "/usr/local/bin",
        "--ro-bind", stand_in, "/.stand-in", "--bind", log, "/log", "--dev", "/dev", "--proc", "/proc",
        *(word for name in ("tmp", "work") for word in ("--size", "50000000", "--tmpfs", f"/{name}")),
        "--chdir", "/work", "/.real/bash", "-c", f"{begin}\n{text}\nwait",
    ]  # fmt: skip
    done = _wait(words, sandbox[1])
    read = list(_read_log(log)) if done is not None else []
    return read if read or (done is not None and done != FAILED) else None


def _wait(words: list[str | Path], who: dict[str, Any]) -> int | None:
    """The exit code; None where the time was up. What is printed goes to a pipe and is dropped: to nowhere, it would count as hidden."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(words, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet, env={}, **who)  # no key of the user's
    assert process.stdout is not None  # noqa: S101
    reader = threading.Thread(target=_drop, args=(process.stdout,), daemon=True)
    reader.start()
    try:
        return process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        return None
    finally:
        process.kill()
        process.wait()
        reader.join(1)


def _drop(pipe: IO[bytes]) -> None:
    with pipe:
        while pipe.read1(1 << 16):  # type: ignore[attr-defined]  # a buffered reader
            pass


FAILED = 1
"""Exit code of bubblewrap itself where it may not make a sandbox; also that of many commands, which then leave a line in the log."""


def _places(text: str) -> str:
    """Relative paths of a command, one a line: a folder ends in /, and of what is written to there is the folder alone."""
    written = set(_WRITTEN.findall(text))
    paths = [path for path in dict.fromkeys((*_PATH.findall(text), *sorted(written))) if "/" in path][:MOST_NAMES]
    lines = [f"{path.rpartition('/')[0]}/" if path in written else path for path in paths]
    return "".join(f"{line}\n" for line in lines if not line.startswith("/") and len(line) < 1000)


def _library(name: str) -> tuple[str, ...]:
    path = Path("/", name)
    if path.is_symlink():
        return ("--symlink", f"usr/{name}", str(path))
    return ("--ro-bind", str(path), str(path)) if path.is_dir() else ()


def _read_log(log: Path) -> Iterator[Command]:
    """What the stand-ins wrote. What was run could write there, too: nothing but plain files is opened, and little of them read."""
    entries = sorted(os.scandir(log), key=lambda entry: entry.name)
    for entry in entries[:MOST_LOGGED]:
        if not entry.is_file(follow_symlinks=False):
            continue
        with open(os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123  # a descriptor
            parts = file.read(MOST_BYTES).decode("utf-8", "replace").split("\0")
        if len(parts) < 5 or not re.fullmatch(r"\d{1,5}", parts[3]):
            continue
        piped, hidden, fed, n = parts[0], parts[1], parts[2], int(parts[3])
        argv = tuple(parts[4 : 5 + n])
        held = dict(part.partition("=")[::2] for part in parts[5 + n :] if "=" in part)
        env = {name: value for name, value in held.items() if name not in _OURS}
        yield Command(argv, env, shlex.join(argv), stdin=fed, piped=bool(piped), hidden=bool(hidden))
