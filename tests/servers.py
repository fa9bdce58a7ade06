"""A server on loopback that speaks as OpenAI's chat completions do, and fails as servers do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

TOKENS = 150

Fault = int | Literal["hang up", "half an answer", "no JSON", "stall"]
"""A status code (0: none) or what happens in the place of an answer."""


class Server:
    """`faults`: of the next calls, in order; `says`: what it answers to them, else A; or `plays` makes a message of a request."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.faults: list[Fault] = []
        self.says: list[str] = []
        self.plays: Callable[[dict[str, Any]], dict[str, Any]] | None = None
        self.delay, self.tokens = 0.0, TOKENS
        self.ended = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fault = outer.faults.pop(0) if outer.faults else 0
                if fault == "stall":
                    outer.ended.wait(60)
                    return
                if fault == "hang up":
                    return
                if isinstance(fault, int) and fault:
                    self.send_response(fault)
                    self.send_header("Retry-After", "0")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                text = outer.answer(body)
                if fault == "no JSON":
                    text = text[: len(text) // 2]
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text[: len(text) // 2] if fault == "half an answer" else text)

            def log_message(self, *words: Any) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, body: dict[str, Any]) -> bytes:
        """The whole answer to a request."""
        self.asked.append(body["messages"][-1]["content"])
        time.sleep(self.delay)
        usage = {"prompt_tokens": self.tokens - 1, "completion_tokens": 1, "total_tokens": self.tokens}
        message = self.plays(body) if self.plays else {"role": "assistant", "content": self.says.pop(0) if self.says else "A"}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if message.get("tool_calls") else "stop"}
        reply = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice], "usage": usage}
        return json.dumps(reply).encode()

    def surroundings(self) -> dict[str, str]:
        """What makes it the provider `here`."""
        return {"HERE_API_KEY": "k-not-to-be-written", "HERE_BASE_URL": f"http://127.0.0.1:{self.http.server_address[1]}/v1"}

    def close(self) -> None:
        """Let go what stalls, and end."""
        self.ended.set()
        self.http.shutdown()
        self.http.server_close()
