"""A hook for Claude Code from a rule's check: a script that stands alone, and the settings that would install it; nothing is installed."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from teachwhy.errors import UserError
from teachwhy.files import explain_os_error, hash_text, write_text
from teachwhy.rules.checks import GIT_OPTIONS_WITH_WORD, SILENT, Check
from teachwhy.rules.commands import POSITIONAL, SHELLS, WRAPPERS


class Hook(NamedTuple):
    """A script that is not written anywhere yet."""

    name: str
    """Of its file."""
    rule: str
    script: str


def make_hook(check: Check, *, id: str, rule: str, reason: str, place: str) -> Hook:  # noqa: A002
    """A script that stops what breaks a rule, by its check. place: where the rule stands, for people."""
    held: dict[str, Any] = {
        "rule": rule, "reason": reason, "place": place,
        **{name: list(getattr(check, name)) for name in ("applies", "forbid", "unpiped", "unless", "approval")},
        "env": check.env, "message_forbid": check.message_forbid,
        "silent": sorted(SILENT), "shells": sorted(SHELLS), "positional": POSITIONAL, "git_options": sorted(GIT_OPTIONS_WITH_WORD),
        "wrappers": {name: sorted(options) for name, options in WRAPPERS.items()},
    }  # fmt: skip
    return Hook(name_file(id), rule, SCRIPT.replace("@DATA@", _quote(held)))


def _quote(held: Mapping[str, Any]) -> str:
    """As a literal of Python that is one line of printable ASCII, whatever it holds: it can neither end the script nor reach a terminal."""
    return repr(json.dumps(held, ensure_ascii=True).replace("\x7f", "\\u007f"))


def name_file(id: str) -> str:  # noqa: A002
    """A file's name from a rule's id, which a user may have written: letters, digits, - and _ alone, no two alike."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", id.lower()).strip("-")[:60] or "rule"
    return f"{plain}.sh" if plain == id else f"{plain}-{hash_text(id)[:8]}.sh"


def save_hooks(hooks: Sequence[Hook], folder: Path) -> list[Path]:
    """Write scripts into a folder. Raises UserError before the first is written where another file stands in the place of one."""
    paths = [folder / hook.name for hook in hooks]
    for path, hook in zip(paths, hooks, strict=True):
        if path.is_symlink() or (path.exists() and not (path.is_file() and path.read_bytes() == hook.script.encode())):
            hint = "Name another folder with --output, or take the file away."
            raise UserError("another file stands in the place of a hook", where=str(path), hint=hint)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, folder) from error
    for path, hook in zip(paths, hooks, strict=True):
        write_text(path, hook.script)
    return paths


def show_settings(paths: Sequence[Path], root: Path) -> str:
    """What would stand in .claude/settings.json of the project at `root` for these scripts to be run."""
    calls = [{"type": "command", "command": f"sh {_name_path(path.resolve(), root.resolve())}"} for path in paths]
    return json.dumps({"hooks": {"PreToolUse": [{"matcher": "Bash", "hooks": calls}]}}, indent=2)


def _name_path(path: Path, root: Path) -> str:
    if path.is_relative_to(root):
        return f'"$CLAUDE_PROJECT_DIR"/{shlex.quote(path.relative_to(root).as_posix())}'
    return shlex.quote(str(path))


SCRIPT = r'''#!/bin/sh
# A hook for Claude Code, made by `teachwhy rules fix`: event PreToolUse, matcher Bash. It needs python3 and nothing else.
#
# It reads a call of the tool as JSON on stdin. Exit 2: the command breaks the rule below, and stderr tells the agent so.
# A rule about asking first is answered with permissionDecision "ask" on stdout, and the user decides. Exit 0: nothing to say.
# Exit 1: there is no python3, or the call could not be read; Claude Code says so and runs the command.
#
# It is simpler than teachwhy's own detectors, which read bash by its grammar. It cuts the text at ; && || | & ( ) and line ends,
# reads words as shlex does, and looks into $(...), here-documents, env, sudo and their kind, bash -c and eval. It does not see
# aliases, variables, find -exec, ssh, containers, other languages, and files that are written first and run or read then: it lets
# them pass. A function's body counts as run, and words of an array or of a case may be taken for commands.
command -v python3 >/dev/null 2>&1 || { echo "teachwhy hook: python3 is missing" >&2; exit 1; }
exec python3 -I - 3<&0 <<'END_OF_HOOK'
import json
import re
import shlex
import sys
from fnmatch import fnmatchcase

RULE = json.loads(@DATA@)
DEEPEST = 8
HEREDOC = re.compile(r"""(?<!<)<<(?!<)-?[ \t]*['"\\]?(\w+)['"]?""")
OPERATOR = re.compile(r"&?[<>][<>&|]*")
ASSIGNED = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
BEFORE = {"then", "do", "else", "elif", "if", "while", "until", "!", "{", "}", "fi", "done", "esac"}
NO_COMMAND = {"for", "case", "select", "function", "[["}


def lift_fed(text):
    """The text with \1 number \1 in the place of here-documents, and what they hold."""
    fed, left, absent, lines, place = [], [], set(), text.split("\n"), 0
    while place < len(lines):
        line, place = lines[place], place + 1
        for found in list(HEREDOC.finditer(line)):
            if found[1] in absent:
                continue
            end = next((n for n in range(place, len(lines)) if lines[n].strip() == found[1]), None)
            if end is None:
                absent.add(found[1])
                continue
            line = line.replace(found[0], " \1%d\1 " % len(fed), 1)
            fed.append("\n".join(lines[place:end]))
            place = end + 1
        left.append(line)
    return "\n".join(left), fed


def closing(text, place):
    """Where the bracket that was opened before `place` is closed."""
    depth, quote = 1, ""
    while place < len(text):
        one = text[place]
        if one == "\\" and quote != "'":
            place += 1
        elif quote:
            quote = "" if one == quote else quote
        elif one in "'\"":
            quote = one
        elif one in "()":
            depth += 1 if one == "(" else -1
            if not depth:
                return place
        place += 1
    return len(text)


def cut(text, held, depth=0):
    """(what stands before it, its text) of each simple command; $(...) is held back as \2 number \2 and cut on its own."""
    found, piece, before, quote, place = [], "", "", "", 0
    while place < len(text):
        one, two = text[place], text[place : place + 2]
        operator = None if quote else OPERATOR.match(text, place)
        if quote == "'":
            piece, quote, place = piece + one, "" if one == "'" else quote, place + 1
        elif one == "\\":
            piece, place = piece + ("" if two == "\\\n" else two), place + 2
        elif two == "$(" or (not quote and two in ("<(", ">(")):
            end = closing(text, place + 2)
            if depth < DEEPEST and not text.startswith("$((", place):
                found += [("(", ""), *cut(text[place + 2 : end], held, depth + 1), (")", "")]
            piece += "\2%d\2" % len(held)
            held.append(text[place : end + 1])
            place = end + 1
        elif quote:
            piece, quote, place = piece + one, "" if one == quote else quote, place + 1
        elif one in "'\"":
            piece, quote, place = piece + one, one, place + 1
        elif one == "#" and piece[-1:] in ("", " ", "\t"):
            end = text.find("\n", place)
            place = len(text) if end < 0 else end
        elif operator:
            head = piece.rstrip("0123456789")
            number = piece[len(head) :] if head[-1:] in ("", " ", "\t") else ""
            piece = piece[: len(piece) - len(number)] + " \3" + number + operator[0] + " "
            place = operator.end()
        elif one in ";&|\n()`":
            found.append((before, piece))
            before, piece = one if one in "()" or (one == "|" and two != "||") else ";", ""
            place += 2 if two in ("&&", "||", ";;", "|&") else 1
        else:
            piece, place = piece + one, place + 1
    return [*found, (before, piece)]


def words_of(piece, held, fed):
    """(words, what it is fed, whether it reads a file, where its output goes)."""
    def fill(word):
        word = re.sub("\2(\\d+)\2", lambda one: held[int(one[1])], word)
        return re.sub("\1(\\d+)\1", lambda one: fed[int(one[1])], word)

    try:
        split = shlex.split(piece)
    except ValueError:  # a quote that is not closed
        split = piece.split()
    argv, stdin, reads, target, operator = [], "", False, "", ""
    for word in split:
        if operator:
            if operator == "<<<":
                stdin += fill(word)
            elif operator.endswith("<"):
                reads = True
            elif operator in (">", ">>", ">|", "1>", "1>>", "&>", "&>>"):
                target = word
            operator = ""
        elif word.startswith("\3"):
            operator = word[1:]
        elif re.fullmatch("\1\\d+\1", word):
            stdin += fill(word)
        else:
            argv.append(fill(word))
    return argv, stdin, reads, target


def program(word):
    return re.sub(r"\.(?:exe|cmd|bat)$", "", re.split(r"[/\\]", word)[-1] or word)


def commands(text, env, depth=0):
    """(words, environment, what it is fed, whether it reads a pipe, whether nobody sees what it prints) of each command."""
    if depth > DEEPEST:
        return
    text, fed = lift_fed(re.sub("[\1\2\3]", "", text))
    held, exported, local, outer, written = [], dict(env), {}, [], ""
    for before, piece in cut(text, held):
        if before == "(":
            outer.append((dict(exported), dict(local)))
        elif before == ")" and outer:
            exported, local = outer.pop()
        argv, stdin, reads, target = words_of(piece, held, fed)
        own = {}
        while argv and argv[0] in BEFORE:
            argv.pop(0)
        while argv and ASSIGNED.fullmatch(argv[0]):
            name, value = ASSIGNED.fullmatch(argv.pop(0)).groups()
            own[name] = value
        if not argv:
            for name, value in own.items():
                (exported if name in exported else local)[name] = value
        if not argv or argv[0] in NO_COMMAND:
            continue
        if argv[0] in ("export", "declare", "typeset"):
            for word in argv[1:]:
                name, sign, value = word.partition("=")
                if sign or name in local:
                    exported[name] = value if sign else local.pop(name)
        elif argv[0] == "unset":
            for word in argv[1:]:
                exported.pop(word, None)
        stdin = stdin or (written if before == "|" else "")
        hidden = target == "/dev/null" or (target and program(argv[0]) == "cat")
        yield from expand(argv, {**exported, **own}, stdin, (before == "|" or bool(stdin)) and not reads, bool(hidden), depth)
        said = " ".join(argv[1:]).replace("\\n", "\n")
        written = said if program(argv[0]) in ("echo", "printf") else stdin if program(argv[0]) == "cat" else ""


def expand(argv, env, stdin, piped, hidden, depth):
    """A command, and the one that it runs."""
    yield argv, env, stdin, piped, hidden
    name = program(argv[0])
    if depth > DEEPEST or argv[:2] in (["command", "-v"], ["command", "-V"]):
        return
    if name == "env" or name in RULE["wrappers"]:
        root, valued = name in ("sudo", "doas"), RULE["wrappers"].get(name, ["-u", "--unset", "-C"])
        env = {} if root and not {"-E", "--preserve-env"} & set(argv) else dict(env)
        rest = argv[1:]
        while rest:
            found = ASSIGNED.fullmatch(rest[0])
            if len(rest[0]) > 1 and rest[0].startswith("-"):
                if name == "env" and rest[0] in ("-i", "--ignore-environment"):
                    env = {}
                if rest[0] in valued and len(rest) > 1:
                    value = rest.pop(1)
                    if name == "env":
                        env.pop(value, None)
            elif found and (root or name in ("env", "time")):
                env[found[1]] = found[2]
            else:
                break
            rest.pop(0)
        rest = rest[RULE["positional"].get(name, 0) :]
        if rest:
            yield from expand(rest, env, stdin, piped and name != "xargs", hidden, depth + 1)
    elif name == "eval":
        yield from commands(" ".join(argv[1:]), env, depth + 1)
    elif name in RULE["shells"]:
        place = next((n for n, word in enumerate(argv) if n and re.fullmatch(r"-[a-zA-Z]*c", word)), len(argv))
        without_file = all(word.startswith("-") for word in argv[1:])
        yield from commands("".join(argv[place + 1 : place + 2]) or (stdin if without_file else ""), env, depth + 1)


PATTERNS = {one: shlex.split(one) for name in ("applies", "forbid", "unpiped", "unless", "approval") for one in RULE[name]}


def matches(patterns, argv):
    """Whether a command has the form of one of the patterns: ... is any words, a|b either, * any letters."""
    words = [program(argv[0]), *argv[1:]]
    if words[0] == "git":  # its own options may stand before the subcommand
        place = 1
        while place < len(words) and words[place].startswith("-"):
            place += 2 if words[place] in RULE["git_options"] else 1
        words = ["git", *words[place:]]
    for pattern in patterns:
        places = {0}
        for part in PATTERNS[pattern]:
            if part == "...":
                places = set(range(min(places), len(words) + 1)) if places else set()
            else:
                fits = [n for n in places if n < len(words) and any(fnmatchcase(words[n], one) for one in part.split("|"))]
                places = {n + 1 for n in fits}
        if len(words) in places:
            return True
    return False


def prints(argv, hidden):
    name = program(argv[0])
    runs = name in RULE["shells"] and (len(argv) == 1 or any(re.fullmatch(r"-[a-zA-Z]*c", word) for word in argv))
    quiet = hidden or name in RULE["silent"] or argv[:2] == ["git", "add"]
    return not (quiet or runs or name == "env" or name in RULE["wrappers"])


def breaks(argv, env, stdin, piped, hidden):
    if RULE["approval"]:
        return matches(RULE["approval"], argv)
    if RULE["forbid"]:
        return matches(RULE["forbid"], argv) or (not piped and matches(RULE["unpiped"], argv))
    if not (matches(RULE["applies"], argv) if RULE["applies"] else prints(argv, hidden)):
        return False
    if RULE["env"]:
        return not all(name in env and fnmatchcase(env[name], value) for name, value in RULE["env"].items())
    texts = [*argv, *(word.partition("=")[2] for word in argv if word.startswith("--")), stdin]
    return any(re.search(RULE["message_forbid"], text) for text in texts)


def show(text):
    """Without what a terminal would obey."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def main():
    try:
        with open(3, encoding="utf-8", errors="replace") as file:
            call = json.load(file)
        text = call["tool_input"]["command"] if call["tool_name"] == "Bash" else ""
        if not isinstance(text, str):
            raise TypeError("the command is no text")
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        print("teachwhy hook: the call cannot be read:", show(repr(error)), file=sys.stderr)
        return 1
    for command in commands(text, {}):
        if not matches(RULE["unless"], command[0]) and breaks(*command):
            reason = "Why: %s." % show(RULE["reason"]).rstrip(".") if RULE["reason"] else ""
            says = "The rule \"%s\" (%s): %s %s" % (show(RULE["rule"]), show(RULE["place"]), show(" ".join(command[0]))[:200], reason)
            if not RULE["approval"]:
                print(says, file=sys.stderr)
                return 2
            asks = {"hookEventName": "PreToolUse", "permissionDecision": "ask", "permissionDecisionReason": says}
            print(json.dumps({"hookSpecificOutput": asks}))
            return 0
    return 0


sys.exit(main())
END_OF_HOOK
'''
"""The script; @DATA@ stands for all that comes from a rule file."""
