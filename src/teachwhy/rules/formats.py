"""Lines of the session logs of Claude Code and Codex: which hold a piece of an agent's answer, which the user's words.

Neither format is promised by its maker. What is read is little (docs/rules.md lists it); what is not known is named, never passed over.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from teachwhy.rules.commands import SHELLS, program_of

CLAUDE_OTHER = frozenset({
    "system", "summary", "attachment", "progress", "file-history-snapshot", "file-history-delta", "queue-operation", "custom-title",
    "ai-title", "agent-name", "agent-color", "agent-setting", "permission-mode", "mode", "last-prompt", "pr-link", "worktree-state",
    "started", "result", "tag", "relocated",
})  # fmt: skip
"""Types of lines of Claude Code that hold no step."""
CLAUDE_BLOCKS = frozenset({
    "thinking", "redacted_thinking", "server_tool_use", "web_search_tool_result", "image", "document", "tool_reference",
    "container_upload", "mcp_tool_use", "mcp_tool_result",
})  # fmt: skip
"""Blocks of a message that hold neither text nor a shell call."""
CODEX_OTHER = frozenset({
    "session_meta", "turn_context", "compacted", "event_msg", "world_state", "inter_agent_communication",
    "inter_agent_communication_metadata", "security_risk_score",
})  # fmt: skip
"""Types of lines of Codex that hold no step; `event_msg` shows again what `response_item` holds."""
CODEX_ITEMS = frozenset({
    "reasoning", "web_search_call", "ghost_snapshot", "compaction", "compaction_summary", "context_compaction",
    "image_generation_call", "tool_search_call", "agent_message",
})  # fmt: skip
CODEX_SHELLS = frozenset({"shell", "shell_command", "exec_command", "container.exec", "local_shell"})
OTHER_SHELLS = frozenset({"PowerShell"})
"""Tools of Claude Code whose commands are not bash."""

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_TAGGED = re.compile(r"\s*<([\w-]+)[^>]*>.*</\1[^>]*>\s*", re.DOTALL)


class Said(NamedTuple):
    """What the user said."""

    text: str


class Odd(NamedTuple):
    """Something that is not known, by its kind."""

    kind: str


class Part(NamedTuple):
    """A piece of an answer: one line of a log."""

    message: str
    commands: tuple[str, ...]
    answer: str = ""
    """Parts of one answer have the same; empty: an answer ends where a tool's output follows."""
    agent: str = ""
    key: str = ""
    """Of no other part of any session."""


class Output(NamedTuple):
    """What a tool gave back."""

    agent: str = ""


Piece = Part | Output | Said | Odd


def clean(text: str) -> str:
    """Without control codes, marks that turn the direction of writing, and halves of letters; tabs and line ends stay."""
    return _CONTROLS.sub("", text)


def _odd(what: str, name: object) -> Odd:
    shown = clean(name)[:60] if isinstance(name, str) else "without a name"
    return Odd(f"{what} {shown}")


def _words(value: object) -> str:
    return value if isinstance(value, str) else ""


def read_claude(row: Mapping[str, Any]) -> Iterator[Piece]:
    """The pieces of one line of Claude Code."""
    kind = row.get("type")
    agent = (_words(row.get("agentId")) or "other") if row.get("isSidechain") else ""
    if kind == "user" or kind == "assistant":
        message = row.get("message")
        content = message.get("content") if isinstance(message, dict) else None
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(message, dict) or not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
            yield Odd(f"Claude Code {kind} line of another form")
        elif kind == "user":
            yield from _read_claude_user(row, blocks, agent)
        elif not row.get("isApiErrorMessage"):
            uuid = _words(row.get("uuid"))
            yield from _read_claude_answer(blocks, _words(message.get("id")) or uuid, agent, uuid)
    elif kind == "attachment":
        held = row.get("attachment")
        if isinstance(held, dict) and held.get("type") == "queued_command" and not agent and held.get("commandMode", "prompt") == "prompt":
            prompt = held.get("prompt")
            blocks = prompt if isinstance(prompt, list) else [{"text": prompt}]
            yield from _say([_words(block.get("text")) for block in blocks if isinstance(block, dict)])
    elif not isinstance(kind, str) or kind not in CLAUDE_OTHER:
        yield _odd("Claude Code line", kind)


def _read_claude_answer(blocks: Sequence[Mapping[str, Any]], answer: str, agent: str, uuid: str) -> Iterator[Piece]:
    texts, commands, key = list[str](), list[str](), uuid
    for block in blocks:
        kind, name = block.get("type"), block.get("name")
        given: Any = block.get("input") if isinstance(block.get("input"), dict) else {}
        if kind == "text":
            texts.append(_words(block.get("text")))
        elif kind == "tool_use" and name == "Bash" and isinstance(given.get("command"), str):
            commands.append(given["command"])
            key = _words(block.get("id")) or key
        elif kind == "tool_use" and name == "AskUserQuestion":
            asked = given.get("questions")
            texts += [_words(one.get("question")) for one in (asked if isinstance(asked, list) else []) if isinstance(one, dict)]
        elif kind == "tool_use" and name in ("Bash", *OTHER_SHELLS):
            yield _odd("Claude Code shell call in another form:", name)
        elif kind != "tool_use" and (not isinstance(kind, str) or kind not in CLAUDE_BLOCKS):
            yield _odd("Claude Code block", kind)
    if commands or any(texts):
        yield Part("\n".join(texts), tuple(commands), answer, agent, key)


def _read_claude_user(row: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]], agent: str) -> Iterator[Piece]:
    for block in blocks:
        kind = block.get("type")
        if kind == "tool_result":
            yield Output(agent)
        elif kind != "text" and (not isinstance(kind, str) or kind not in CLAUDE_BLOCKS):
            yield _odd("Claude Code block", kind)
    origin, result = row.get("origin"), row.get("toolUseResult")
    by_program = row.get("isMeta") or row.get("isCompactSummary") or (isinstance(origin, dict) and origin.get("kind", "human") != "human")
    if agent or by_program:
        return
    yield from _say([_words(block.get("text")) for block in blocks if block.get("type") == "text"])
    if isinstance(result, dict) and isinstance(result.get("answers"), dict):
        yield from _say([_words(answer) for answer in result["answers"].values()])


def _say(texts: Sequence[str]) -> Iterator[Said]:
    """A text that is one tagged block from end to end was put in by the program, not by the user."""
    if own := [text for text in texts if text.strip() and not _TAGGED.fullmatch(text) and not text.startswith("# AGENTS.md instructions")]:
        yield Said("\n".join(own))


def read_codex(row: Mapping[str, Any]) -> Iterator[Piece]:
    """The pieces of one line of Codex."""
    kind, item = row.get("type"), row.get("payload")
    if kind != "response_item":
        if not isinstance(kind, str) or kind not in CODEX_OTHER:
            yield _odd("Codex line", kind)
        return
    inner = item.get("type") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(inner, str):
        yield Odd("Codex item of another form")
    elif inner == "message":
        yield from _read_codex_message(item, _words(row.get("timestamp")))
    elif inner in ("function_call", "local_shell_call"):
        yield from _read_codex_call(item)
    elif inner == "custom_tool_call":
        if item.get("name") != "apply_patch":
            yield _odd("Codex tool", item.get("name"))
    elif inner.endswith("_output"):
        yield Output()
    elif inner not in CODEX_ITEMS:
        yield _odd("Codex item", inner)


def _read_codex_message(item: Mapping[str, Any], stamp: str) -> Iterator[Piece]:
    content, role = item.get("content"), item.get("role")
    if isinstance(content, str):
        content = [{"text": content}]
    if not isinstance(content, list) or role not in ("user", "assistant", "system", "developer"):
        yield Odd("Codex message of another form")
        return
    texts = [_words(part.get("text")) for part in content if isinstance(part, dict)]
    if role == "assistant" and any(texts):
        text = "\n".join(texts)
        yield Part(text, (), key=_words(item.get("id")) or (f"{stamp} {text}" if stamp else ""))
    elif role == "user":
        yield from _say(texts)


def _read_codex_call(item: Mapping[str, Any]) -> Iterator[Piece]:
    name = _words(item.get("name")) if item["type"] == "function_call" else "local_shell"
    if name != "write_stdin" and name not in CODEX_SHELLS:
        return
    given: Any = item.get("action")
    if item["type"] == "function_call":
        try:
            given = json.loads(_words(item.get("arguments")))
        except (ValueError, RecursionError):
            given = None
    if name == "write_stdin":
        if not isinstance(given, dict) or clean(_words(given.get("chars"))).strip():
            yield Odd("Codex text typed into a program that runs")
        return
    command = _join(given.get("command", given.get("cmd"))) if isinstance(given, dict) else ""
    if command:
        yield Part("", (command,), key=_words(item.get("call_id")))
    else:
        yield _odd("Codex shell call in another form:", name)


def _join(command: object) -> str:
    """A command as one text; of `bash -lc TEXT`, the text."""
    if isinstance(command, list) and command and all(isinstance(word, str) for word in command):
        if len(command) == 3 and program_of(command[0]) in SHELLS and re.fullmatch(r"-[a-z]*c", command[1]):
            return str(command[2])
        return shlex.join(command)
    return _words(command)
