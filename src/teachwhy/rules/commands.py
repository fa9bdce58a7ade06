"""The commands that a piece of bash would run, each with its words and environment, by tree-sitter's grammar; nothing is run.

What only a running shell can know stays as it is written ("$HOME", "$(date)"). Branches and loops are walked once, as if taken.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

MAX_DEPTH = 8
"""Of bash inside bash, and of functions that call each other."""
MAX_COMMANDS = 10_000
"""That are read of one text: functions and aliases can multiply them."""
MAX_EXPANDED = 40_000
"""Letters of a command, a value or a file of the text, variables filled in; longer ones stay as they are written, or are not known."""
SHELLS = frozenset({"bash", "sh", "zsh", "dash", "ksh"})
WRAPPERS: dict[str, frozenset[str]] = {
    "command": frozenset(), "builtin": frozenset(), "exec": frozenset({"-a"}), "nohup": frozenset(), "setsid": frozenset(),
    "time": frozenset({"-f", "-o"}), "nice": frozenset({"-n"}), "ionice": frozenset({"-c", "-n"}), "stdbuf": frozenset({"-i", "-o", "-e"}),
    "sudo": frozenset({"-u", "-g", "-p", "-C", "-h"}), "doas": frozenset({"-u"}), "timeout": frozenset({"-k", "-s"}),
    "xargs": frozenset({"-I", "-n", "-P", "-L", "-d", "-E", "-s", "-a"}), "watch": frozenset({"-n"}), "caffeinate": frozenset(),
}  # fmt: skip
"""Programs that run another one -> their options that take a word of their own."""
POSITIONAL = {"timeout": 1}
"""... and how many words stand before the program."""
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class Command(NamedTuple):
    """One simple command."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    """What is set for it in this text: exported before, in front of it, or by `env`."""
    text: str
    """As it is written."""
    stdin: str = ""
    """What a here-document, a here-string or an echo before it feeds it."""
    piped: bool = False
    """Whether it reads what another one writes."""
    hidden: bool = False
    """Whether what it prints goes to a file or nowhere."""
    is_call: bool = False
    """Whether it is a function of the text, whose commands stand for it."""


@dataclass
class _Shell:
    """What a shell knows at a point of the text."""

    exported: dict[str, str] = field(default_factory=dict)
    local: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    functions: dict[str, tuple[Node, bytes]] = field(default_factory=dict)
    depth: int = 0
    exports_all: bool = False
    """After `set -a`."""
    files: dict[str, str] = field(default_factory=dict)
    """What this text itself has written; one for all its subshells."""
    read: list[None] = field(default_factory=list)
    """An entry a command that was read; one for all subshells, too."""

    def fork(self) -> _Shell:
        copies = dict(self.exported), dict(self.local), dict(self.aliases), dict(self.functions)
        return _Shell(*copies, self.depth, self.exports_all, self.files, self.read)

    def value(self, name: str) -> str | None:
        return self.exported.get(name, self.local.get(name))

    def write(self, name: str, text: str) -> None:
        if len(text) <= MAX_EXPANDED:
            self.files[name] = text

    def set(self, name: str, value: str, *, export: bool = False) -> None:
        if export or self.exports_all or name in self.exported:
            self.local.pop(name, None)
            self.exported[name] = value
        else:
            self.local[name] = value


def parse_commands(text: str) -> list[Command]:
    """Every simple command of a text, in the order in which it would run."""
    return list(_walk_text(text, _Shell()))


@cache
def _parser() -> Parser:
    import tree_sitter
    import tree_sitter_bash

    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))


def _walk_text(text: str, shell: _Shell) -> Iterator[Command]:
    if shell.depth > MAX_DEPTH:
        return
    source = text.encode("utf-8", "surrogatepass")
    yield from _walk(_parser().parse(source).root_node, source, shell)


def _walk(node: Node, source: bytes, shell: _Shell) -> Iterator[Command]:
    kind = node.type
    if kind == "command":
        shell.read.append(None)
        if len(shell.read) <= MAX_COMMANDS:
            yield from _run(node, source, shell)
    elif kind == "redirected_statement":
        yield from _redirected(node, source, shell)
    elif kind in ("subshell", "command_substitution", "process_substitution"):
        yield from _walk_children(node, source, shell.fork())
    elif kind == "pipeline":
        yield from _pipeline(node, source, shell)
    elif kind == "variable_assignment":
        yield from _assign(node, source, shell)
    elif kind == "declaration_command":
        yield from _declare(node, source, shell)
    elif kind == "unset_command":
        for part in node.named_children:
            name = _source(part, source)
            shell.exported.pop(name, None)
            shell.local.pop(name, None)
    elif kind == "function_definition":
        called, body = node.child_by_field_name("name"), node.child_by_field_name("body")
        if called is not None and body is not None:
            shell.functions[_source(called, source)] = (body, source)
    elif kind not in ("comment", "heredoc_body", "heredoc_start", "heredoc_end", "raw_string"):
        yield from _walk_children(node, source, shell)


def _pipeline(node: Node, source: bytes, shell: _Shell) -> Iterator[Command]:
    """Each part in a shell of its own; what echo, printf or a fed cat writes is what the next one reads."""
    written = ""
    for place, part in enumerate(node.named_children):
        commands = list(_walk(part, source, shell.fork()))
        if place and commands:
            first = next((number for number, one in enumerate(commands) if one.argv[0] not in WRAPPERS), len(commands) - 1)
            reads = first if program_of(commands[0].argv[0]) != "xargs" else 0  # xargs reads, and what it runs does not
            commands = [
                one._replace(piped=True, stdin=one.stdin or written) if number <= reads else one for number, one in enumerate(commands)
            ]
            if written:
                commands += _fed_shell(commands[first], written, shell)
        yield from commands
        written = _writes(commands[-1]) if len(commands) == 1 else ""


def _writes(command: Command) -> str:
    name = program_of(command.argv[0])
    if name in ("echo", "printf"):
        return _unescape_c(" ".join(command.argv[1:])) + "\n"
    return command.stdin if name == "cat" else ""


def _walk_children(node: Node, source: bytes, shell: _Shell) -> Iterator[Command]:
    for part in node.named_children:
        yield from _walk(part, source, shell)


def _assign(node: Node, source: bytes, shell: _Shell, *, export: bool = False) -> Iterator[Command]:
    name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
    if value is not None:
        yield from _walk(value, source, shell)  # A=$(git push) pushes
    if name is not None:
        shell.set(_source(name, source), _word(value, source, shell) if value is not None else "", export=export)


def _declare(node: Node, source: bytes, shell: _Shell) -> Iterator[Command]:
    parts = [_source(part, source) for part in node.children]
    export = parts[0] == "export" or (parts[0] in ("declare", "typeset") and any(re.match(r"-[a-z]*x", part) for part in parts[1:]))
    for part in node.named_children:
        if part.type == "variable_assignment":
            yield from _assign(part, source, shell, export=export)
        elif part.type == "variable_name" and export and "-n" not in parts:
            name = _source(part, source)
            if (value := shell.value(name)) is not None:
                shell.set(name, value, export=True)


def _redirected(node: Node, source: bytes, shell: _Shell) -> Iterator[Command]:
    """A statement and where it reads from and writes to; a shell that is fed a here-document or a here-string runs it."""
    fed = [part for part in node.named_children if part.type in ("heredoc_redirect", "herestring_redirect")]
    files = [part for part in node.named_children if part.type == "file_redirect"]
    text = "".join(_fed_text(one, source, shell) for one in fed)
    for part in node.named_children:
        if part in files:
            yield from _walk_children(part, source, shell)  # a process substitution
        if part in fed or part in files:
            continue
        commands = list(_walk(part, source, shell))
        after = next((one.start_byte for one in node.named_children if one.start_byte >= part.end_byte), part.end_byte)
        lost = source[part.end_byte : after].decode("utf-8", "replace").split()  # the grammar drops a lone "-" before "<<"
        commands[-1:] = [one._replace(argv=(*one.argv, *lost)) for one in commands[-1:]]
        read = any(_source(one, source).startswith("<") for one in files)
        commands[-1:] = [one._replace(stdin=text or one.stdin, piped=(one.piped or bool(text)) and not read) for one in commands[-1:]]
        commands = [_write(one, files, source, shell) for one in commands]
        yield from commands
        if commands and text:
            yield from _fed_shell(commands[-1], text, shell)
    for part in (child for one in fed for child in one.named_children if child.type in ("command", "pipeline", "list")):
        inner = list(_walk(part, source, shell))  # cat <<EOF | bash: the grammar has the rest of the line in here
        if inner:
            yield inner[0]._replace(piped=True, stdin=text)
            yield from inner[1:]
            yield from _fed_shell(inner[0], text, shell)


def _write(command: Command, files: list[Node], source: bytes, shell: _Shell) -> Command:
    """Note what goes to a file, and whether anybody sees what is printed."""
    for one in files:
        found = re.match(r"(?:1|&)?>>?\|?\s*(?!&|\()(\S+)", _source(one, source))
        if not found:
            continue
        name = program_of(command.argv[0])
        if found[1] == "/dev/null" or name == "cat":
            command = command._replace(hidden=True)
        if name in ("cat", "echo", "printf"):
            shell.write(found[1].strip("'\""), shell.files.get(found[1], "") + _writes(command))
    return command


def _fed_shell(command: Command, text: str, shell: _Shell) -> Iterator[Command]:
    """What a shell runs that is fed a script."""
    if _reads_stdin(command.argv):
        inner = shell.fork()
        inner.exported |= command.env
        inner.depth += 1
        yield from _walk_text(text, inner)


def _fed_text(node: Node, source: bytes, shell: _Shell) -> str:
    if node.type == "herestring_redirect":
        return "".join(_word(part, source, shell) for part in node.named_children)
    return "".join(_source(part, source) for part in node.named_children if part.type == "heredoc_body")


def _reads_stdin(argv: tuple[str, ...]) -> bool:
    """Whether it is a shell without a script."""
    return bool(argv) and program_of(argv[0]) in SHELLS and all(word.startswith("-") and "c" not in word for word in argv[1:])


def _run(node: Node, source: bytes, shell: _Shell) -> Iterator[Command]:
    """A simple command: what its words run first, then itself, then what it runs."""
    own: dict[str, str] = {}
    words: list[str] = []
    named: list[Node] = []
    fed = ""
    for place, part in enumerate(node.children):
        if part.type == "herestring_redirect":
            fed = _fed_text(part, source, shell)
        elif not part.is_named and node.field_name_for_child(place) != "argument":
            continue
        elif part.type == "variable_assignment":
            name_node, value = part.child_by_field_name("name"), part.child_by_field_name("value")
            if value is not None:
                yield from _walk(value, source, shell)
            if name_node is not None:
                own[_source(name_node, source)] = _word(value, source, shell) if value is not None else ""
        elif part.type in ("file_redirect", "heredoc_redirect"):
            continue
        else:
            yield from _walk(part, source, shell)  # substitutions inside words
            words.append(_word(part, source, shell))
            named.append(part)
    if not words:
        return
    text = _source(node, source)
    if sum(map(len, words)) > MAX_EXPANDED:
        words = [_source(part, source) for part in named]
    if words[0] in shell.aliases:
        inner = shell.fork()
        inner.aliases.pop(words[0])
        inner.exported |= own
        inner.depth += 1
        yield from _walk_text(" ".join([shell.aliases[words[0]], *map(_quote, words[1:])]), inner)
        return
    if words[0] == "set" and (flags := [word for word in words[1:] if re.fullmatch(r"[-+][a-zA-Z]*a[a-zA-Z]*", word)]):
        shell.exports_all = flags[-1].startswith("-")
    if words[0] == "alias":
        for word in words[1:]:
            name, sign, body = word.partition("=")
            if sign:
                shell.aliases[name] = body
    if words[0] == "eval":  # in this very shell: what it exports stays
        yield Command(tuple(words), {**shell.exported, **own}, text)
        shell.depth += 1
        yield from _walk_text(" ".join(words[1:]), shell)
        shell.depth -= 1
        return
    command, *inner_commands = _expand(tuple(words), {**shell.exported, **own}, text, shell)
    yield command._replace(stdin=fed or _named_files(command, shell), piped=bool(fed))
    yield from inner_commands
    if fed:
        yield from _fed_shell(command, fed, shell)


def _named_files(command: Command, shell: _Shell) -> str:
    """What stands in files that this text wrote and that a command names: `git commit -F message`."""
    found = [shell.files[word] for word in command.argv[1:] if word in shell.files]
    return "\n".join(found) if sum(map(len, found)) <= MAX_EXPANDED else ""


def _expand(argv: tuple[str, ...], env: dict[str, str], text: str, shell: _Shell) -> Iterator[Command]:
    """The command, and the one that it runs: of a wrapper, a shell, find -exec, or a function of the text."""
    yield Command(argv, env, text, is_call=argv[0] in shell.functions)
    if shell.depth > MAX_DEPTH:
        return
    name = program_of(argv[0])
    inner = shell.fork()
    inner.depth += 1
    inner.exported |= env
    if argv[0] in shell.functions:  # in this very shell: what it exports stays
        body, source = shell.functions[argv[0]]
        own = env.keys() - shell.exported.keys()
        shell.exported |= env
        shell.depth += 1
        yield from _walk(body, source, shell)
        shell.depth -= 1
        for key in own:
            shell.exported.pop(key, None)
    elif argv[0] in shell.files:
        yield from _walk_text(shell.files[argv[0]], inner)
    elif name == "env":
        yield from _expand_env(argv, env, text, inner)
    elif name == "command" and argv[1:2] in (("-v",), ("-V",)):
        return  # only says where a program is
    elif name in WRAPPERS:
        yield from _expand_wrapper(name, argv, env, text, inner)
    elif name in SHELLS or name == "eval":
        yield from _walk_text(_script(argv) or next((shell.files[word] for word in argv[1:] if word in shell.files), ""), inner)
    elif name == "find" or name in ("fd", "fdfind"):
        for start, word in enumerate(argv):
            if word in ("-exec", "-execdir", "-ok", "-okdir") if name == "find" else word in ("-x", "-X", "--exec", "--exec-batch"):
                end = next((place for place in range(start + 1, len(argv)) if argv[place] in (";", "+")), len(argv))
                if argv[start + 1 : end]:
                    yield from _expand(argv[start + 1 : end], env, text, inner)
    elif name == "ssh" or name in CONTAINERS:
        yield from _expand_elsewhere(name, argv, text, inner)


def _expand_wrapper(name: str, argv: tuple[str, ...], env: dict[str, str], text: str, shell: _Shell) -> Iterator[Command]:
    rest = _after_options(argv, WRAPPERS[name], POSITIONAL.get(name, 0))
    root = name in ("sudo", "doas")
    kept = {} if root and not any(word in ("-E", "--preserve-env") for word in argv) else dict(env)
    while (root or name == "time") and rest and (found := re.match(r"(\w+)=(.*)", rest[0], re.DOTALL)):
        kept[found[1]], rest = found[2], rest[1:]  # NAME=value may stand before the program
    if root:
        shell.exported = dict(kept)
    if rest:
        yield from _expand(rest, kept, text, shell)


CONTAINERS = frozenset({"docker", "podman", "docker-compose", "kubectl"})
_VALUED = frozenset(
    {"-u", "-w", "-e", "-v", "-p", "-n", "-c", "-f", "-i", "-l", "-o", "-J", "-F", "--name", "--user", "--workdir", "--env", "--volume"}
)
"""Options of ssh and of containers that take a word of their own."""


def _expand_elsewhere(name: str, argv: tuple[str, ...], text: str, shell: _Shell) -> Iterator[Command]:
    """What runs on another machine or in a container; this shell's variables do not reach it, `-e NAME=value` does."""
    shell.exported, shell.local, shell.aliases, shell.functions = {}, {}, {}, {}
    words = list(argv[1:])
    if name in CONTAINERS:
        while words and words[0] not in ("exec", "run"):
            words.pop(0)
        words = words[1:]
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option == "--":
            break
        if option in ("-e", "--env") and words and (found := re.match(r"(\w+)=(.*)", words[0], re.DOTALL)):
            shell.exported[found[1]] = found[2]
        if option in _VALUED - ({"-n", "-f"} if name == "ssh" else {"-i", "-c"}) and words:
            words.pop(0)
    words = words[1:]  # the machine, the container, the image
    while words[:1] == ["--"]:
        words = words[1:]
    if not words:
        return
    if name == "ssh":
        yield from _walk_text(" ".join(words), shell)
    else:
        yield from _expand(tuple(words), dict(shell.exported), text, shell)


def _expand_env(argv: tuple[str, ...], env: dict[str, str], text: str, shell: _Shell) -> Iterator[Command]:
    held, rest = dict(env), list(argv[1:])
    while rest:
        word = rest[0]
        if word in ("-i", "-", "--ignore-environment"):
            held = {}
        elif word in ("-u", "--unset") and len(rest) > 1:
            held.pop(rest.pop(1), None)
        elif word in ("-S", "--split-string") and len(rest) > 1:
            yield from _walk_text(" ".join(rest[1:]), shell)
            return
        elif found := re.match(r"([A-Za-z_]\w*)=(.*)", word, re.DOTALL):
            held[found[1]] = found[2]
        elif not word.startswith("-"):
            break
        rest.pop(0)
    if rest:
        yield from _expand(tuple(rest), held, text, shell)


def _after_options(argv: tuple[str, ...], with_word: frozenset[str], n_before: int) -> tuple[str, ...]:
    place = 1
    while place < len(argv) and argv[place].startswith("-") and argv[place] != "-":
        if argv[place] == "--":
            place += 1
            break
        place += 2 if argv[place] in with_word else 1
    return argv[place + n_before :]


def _script(argv: tuple[str, ...]) -> str:
    """What `bash -c` or `eval` runs; empty for a script in a file."""
    if argv[0] == "eval":
        return " ".join(argv[1:])
    for place, word in enumerate(argv[1:], 1):
        if re.fullmatch(r"-[a-zA-Z]*c", word):
            return argv[place + 1] if place + 1 < len(argv) else ""
        if not word.startswith("-"):
            return ""
    return ""


def program_of(word: str) -> str:
    """`git` for /usr/bin/git, .venv/bin/git, C:/Git/git.exe and \\git."""
    return re.sub(r"\.(?:exe|cmd|bat)$", "", re.split(r"[/\\]", word)[-1] or word)


def _source(node: Node, source: bytes) -> str:
    return source[node.start_byte : node.end_byte].decode("utf-8", "replace")


def _word(node: Node, source: bytes, shell: _Shell) -> str:
    """A word as the shell would pass it on, as far as the text says."""
    kind, text = node.type, _source(node, source)
    if kind == "raw_string":
        return text[1:-1]
    if kind == "ansi_c_string":
        return _unescape_c(text[2:-1])
    if kind in ("string", "translated_string"):
        return _string(node, source, shell)
    if kind in ("concatenation", "command_name"):
        parts = [_word(part, source, shell) for part in node.named_children]
        return "".join(parts) if parts and sum(map(len, parts)) <= MAX_EXPANDED else text
    if kind in ("simple_expansion", "expansion"):
        name = text[1:].strip("{}")
        value = shell.value(name) if re.fullmatch(r"\w+", name) else None
        return text if value is None else value
    if kind == "word":
        return _ESCAPE.sub(lambda found: "" if found[1] == "\n" else found[1], text)
    return text


def _string(node: Node, source: bytes, shell: _Shell) -> str:
    """Between double quotes: expansions are filled in where they are known, everything else is literal."""
    parts, place = [], node.start_byte + (2 if node.type == "translated_string" else 1)
    for part in node.named_children:
        if part.type in ("simple_expansion", "expansion", "command_substitution"):
            parts.append(source[place : part.start_byte].decode("utf-8", "replace"))
            place = part.end_byte
            parts.append(f"\0{_word(part, source, shell)}\0")  # what was filled in is not unescaped
    parts.append(source[place : max(place, node.end_byte - 1)].decode("utf-8", "replace"))
    if sum(map(len, parts)) > MAX_EXPANDED:
        return _source(node, source)
    whole = "".join(parts).split("\0")
    literal = [re.sub(r'\\([$`"\\\n])', lambda found: "" if found[1] == "\n" else found[1], text) for text in whole[::2]]
    filled = whole[1::2]
    return "".join(text for pair in zip(literal, [*filled, ""], strict=False) for text in pair)


def _unescape_c(text: str) -> str:
    try:
        return str(ast.literal_eval('"' + text.replace('"', '\\"') + '"'))
    except (ValueError, SyntaxError):
        return text


def _quote(word: str) -> str:
    import shlex

    return shlex.quote(word)
