"""Arms behind an API, against a real server on loopback: calls are estimated, capped and never asked twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspect_ai.model import ModelUsage
from typer.testing import CliRunner, Result

from servers import TOKENS, Server
from teachwhy import budget
from teachwhy.budget import FIRST, NONE_ANSWERED, Cap, Limits, Price, Spend, estimate_tokens, first_error, most_tokens
from teachwhy.cli import app as cli
from teachwhy.errors import EXIT_CAP, EXIT_FINDINGS, EXIT_OK, EXIT_USAGE, CapReached, CellFailed
from teachwhy.evaluations.choice import choice_task, load_scenarios
from teachwhy.evaluations.readings import ask_letter
from teachwhy.files import now, read_card, write_card
from teachwhy.outcomes import read_outcomes
from teachwhy.records import Card, Counts, StudyReport
from test_study import call, write_study

N_CALLS = 2 * 4  # two scenarios, every option in every place


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two names of one model, read as text."""
    whole = {
        "name": "api", "question": "?", "start": "none", "seeds": [1], "neutral": None,
        "arms": {"one": {"model": "openai-api/here/a"}, "other": {"model": "openai-api/here/b"}},
        "evaluations": [{"honeypots": {"limit": 2, "splits": ["far"], "reading": "text", "twins": False}}],
        "primary": {
            "name": "one - other", "evaluation": "honeypots", "reading": "text", "measure": "harm", "splits": ["far"],
            "plus": ["one"], "minus": ["other"], "claim": "lower", "yes": "Y", "no": "N", "opposite": "O",
        },
    }  # fmt: skip
    return write_study(tmp_path, whole)


def surroundings(file: Path, server: Server) -> dict[str, str]:
    return {**server.surroundings(), "TEACHWHY_CACHE": str(file.parent / "cache")}


def start(file: Path, server: Server, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "teachwhy", "study", "run", str(file), "--yes", "--output", str(file.parent / "run"), *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **surroundings(file, server)},
    )  # fmt: skip


def run(file: Path, server: Server, *words: str) -> Result:
    whole = ["study", "run", str(file), "--yes", "--output", str(file.parent / "run"), "--workers", "0", *words]
    return CliRunner().invoke(cli.app, whole, prog_name="teachwhy", env=surroundings(file, server))


def prompts() -> list[str]:
    """What is asked, as far as a cap counts it."""
    task = choice_task("honeypots", load_scenarios("honeypots", limit=2, splits=["far"], part="dev"), reading="text", twins=False)
    return ["\n".join(message.text for message in ask_letter(sample.input, sample.metadata["actions"])) for sample in list(task.dataset)]  # type: ignore[arg-type,index]


def cells(file: Path) -> list[Path]:
    return sorted((file.parent / "run" / "cells").glob("honeypots-*[0-9a-f]"))


@pytest.mark.parametrize("unit", ["tokens", "usd"])
def test_cap_stops_before_it_is_passed_and_more_goes_on_where_it_stopped(study: Path, server: Server, unit: str) -> None:
    prices = study.with_name("prices.yaml")  # a dollar a token, so that both caps are one number
    prices.write_text("".join(f"openai-api/here/{name}: {{input: 1000000, output: 1000000}}\n" for name in ("a", "b")))
    more = ("--prices", str(prices)) if unit == "usd" else ()
    worst = max(len(text) for text in prompts()) + 100
    stopped = run(study, server, f"--max-{unit}", str(3 * TOKENS + worst), *more)
    assert stopped.exit_code == EXIT_CAP, stopped.stderr
    assert "about" in stopped.stderr and f"{N_CALLS} calls of openai-api/here/a" in stopped.stderr
    assert "the same command goes on" in stopped.stderr
    assert 1 <= len(server.asked) < N_CALLS
    assert len(server.asked) * TOKENS <= 3 * TOKENS + worst
    assert not cells(study)
    before = len(server.asked)
    done = run(study, server, f"--max-{unit}", str(2 * N_CALLS * TOKENS + worst), *more)
    assert done.exit_code in (EXIT_OK, EXIT_FINDINGS, 3), done.stderr
    assert len(server.asked) == 2 * N_CALLS > before, "nothing is asked twice"
    assert [read_card(cell).spend["tokens"] for cell in cells(study)] == [N_CALLS * TOKENS] * 2, "what all attempts took together"
    assert [read_card(cell).spend["usd"] for cell in cells(study)] == pytest.approx([N_CALLS * TOKENS * (unit == "usd")] * 2)
    rows = read_outcomes(study.parent / "run" / "outcomes.csv")
    assert (len(rows), {row.status for row in rows}) == (2 * N_CALLS, {"ok"})
    left = [path for path in (study.parent / "run").rglob("*") if path.name in ("calls", "spent.json")]
    assert not left, "what was kept for going on is dropped"
    texts = [path.read_bytes() for path in (study.parent / "run").rglob("*") if path.is_file()]
    assert not any(b"k-not-to-be-written" in text for text in texts)


def test_faults_of_a_server_change_nothing(study: Path, server: Server) -> None:
    server.faults = [500, 0, 429, 503, 0]
    done = run(study, server)
    report = StudyReport.model_validate_json((study.parent / "run" / "report.json").read_text())
    assert {cell.state for cell in report.cells} == {"done"}, done.stderr
    assert len(server.asked) == 2 * N_CALLS
    assert report.missing["ok"] == 2 * N_CALLS
    assert report.primary is not None and report.primary.difference == 0
    assert -1 < report.primary.low < -0.5 and 0.5 < report.primary.high < 1, "two scenarios know little"


def test_call_that_a_server_refuses_for_good_is_missing_and_does_not_stop_the_rest(study: Path, server: Server) -> None:
    text = study.read_text().replace("limit: 2", "limit: 6")
    study.write_text(text)
    server.faults = [400]
    done = run(study, server)
    report = StudyReport.model_validate_json((study.parent / "run" / "report.json").read_text())
    assert {cell.state for cell in report.cells} == {"done"}, done.stderr
    assert report.missing["dead"] == 1
    assert [gate.passed for gate in report.gates if gate.name == "everything was run and read"] == [True]
    assert report.contrasts[0].lowest is not None, "what it could change is said"
    assert report.primary is not None and report.primary.n_scenarios == 5


def test_spend_of_a_cell_that_is_being_published_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = tmp_path / "honeypots-1.part"
    part.mkdir()
    card = Card(kind="honeypots", name="a", created=now(), counts=Counts(in_=1, kept=1), spend={"tokens": 5.0})
    write_card(part, card)

    def read_late(folder: Path) -> Card:
        if folder == part:
            part.rename(tmp_path / "honeypots-1")  # by another process, just before
        return read_card(folder)

    monkeypatch.setattr(budget, "read_card", read_late)
    assert budget.spent_in(tmp_path).tokens == 5
    assert budget.spent_in(tmp_path).tokens == 5


@pytest.mark.slow
def test_calls_in_flight_when_a_run_is_ended_are_not_forgotten(study: Path, server: Server) -> None:
    server.tokens = 900  # near the most that a call can take, so that a call that is forgotten is seen
    limit = 4 * (max(len(text) for text in prompts()) + 100)
    server.delay = 5.0
    process = start(study, server, "--max-tokens", str(limit))
    while process.poll() is None and len(server.asked) < 3:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    n_begun, server.delay = len(server.asked), 0.0
    run(study, server, "--max-tokens", str(limit))
    assert n_begun >= 3
    assert len(server.asked) * server.tokens <= limit


def test_missing_key_and_unknown_provider_are_said_before_anything_is_asked(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for model, says in (("openai/gpt-4o-mini", "export OPENAI_API_KEY=..."), ("opennai/x", "opennai")):
        study.write_text(study.read_text().replace("openai-api/here/a", model).replace("openai/gpt-4o-mini", model))
        done = call("study", "run", study, "--plan", "--output", study.parent / "run")
        assert done.exit_code == EXIT_USAGE, done.stderr
        assert says in done.stderr and "arm 'one'" in done.stderr


@pytest.mark.parametrize(
    ("prices", "says"),
    [
        (None, "--max-usd needs the price of openai-api/here/a"),
        ("openai-api/here/a: {input: 1}", "output"),
        ("openai-api/here/a: {input: -1, output: 2}", "input"),
        ("- 3", "holds no models"),
        ("other/model: {input: 1, output: 2}", "add --prices prices.yaml"),
    ],
)
def test_cap_in_dollars_asks_for_prices(study: Path, server: Server, prices: str | None, says: str) -> None:
    words = []
    if prices is not None:
        study.with_name("prices.yaml").write_text(prices)
        words = ["--prices", str(study.with_name("prices.yaml"))]
    stopped = run(study, server, "--max-usd", "5", *words)
    assert stopped.exit_code == EXIT_USAGE
    assert says in " ".join(stopped.stderr.split())
    assert not server.asked


def test_price_counts_what_the_cache_took() -> None:
    price = Price(input=3, output=15, input_cache_write=3.75, input_cache_read=0.3)
    assert price.of(1000, 100, 2000, 4000) == pytest.approx(0.003 + 0.0015 + 0.0075 + 0.0012)
    assert Price(input=3, output=15).of(0, 0, 1000, 1000) == pytest.approx(0.006)


async def spend(cap: Cap, worsts: list[int], shares: list[float]) -> tuple[int, int]:
    """Calls side by side; each takes a share of its worst. Returns how many were made and how many were refused."""
    made = refused = 0

    async def one(worst: int, share: float) -> None:
        nonlocal made, refused
        try:
            async with cap.call(worst // 2, worst - worst // 2) as call:
                await asyncio.sleep(0)
                call.took(ModelUsage(input_tokens=(n_in := int(worst // 2 * share)), output_tokens=0, total_tokens=n_in))
                made += 1
        except CapReached:
            refused += 1

    await asyncio.gather(*(one(worst, share) for worst, share in zip(worsts, shares, strict=True)))
    return made, refused


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 3000), st.lists(st.tuples(st.integers(1, 900), st.floats(0, 1)), max_size=12), st.booleans())
def test_cap_holds_whatever_calls_take(limit: int, calls: list[tuple[int, float]], dollars: bool) -> None:
    price = Price(input=1.0, output=1.0)
    cap = Cap(Limits(usd=limit / 1e6) if dollars else Limits(limit), price=price if dollars else None)
    made, refused = asyncio.run(spend(cap, [worst for worst, _ in calls], [share for _, share in calls]))
    assert made + refused == len(calls)
    assert cap.used.tokens <= limit
    assert cap.used.usd == pytest.approx(cap.used.tokens / 1e6 if dollars else 0.0)
    assert cap.held == Spend()
    assert cap.reached == bool(refused)
    if sum(worst for worst, _ in calls) <= limit:
        assert not refused


def test_a_dead_endpoint_is_told_after_the_first_calls() -> None:
    made = 0

    async def dead() -> None:
        cap = Cap()

        async def one() -> None:
            nonlocal made
            async with cap.call(5, 5):
                made += 1
                await asyncio.sleep(0.001)
                raise ValueError("refused")

        found = await asyncio.gather(*(one() for _ in range(80)), return_exceptions=True)
        assert sum(isinstance(error, CellFailed) for error in found) == 80 - made

    asyncio.run(dead())
    assert made == FIRST


def test_one_answer_lets_all_other_calls_be_made() -> None:
    made = 0

    async def flaky() -> None:
        cap = Cap()

        async def one(number: int) -> None:
            nonlocal made
            async with cap.call(5, 5):
                made += 1
                await asyncio.sleep(0.001)
                if number % 3:
                    raise ValueError("refused")

        await asyncio.gather(*(one(number) for number in range(80)), return_exceptions=True)

    asyncio.run(flaky())
    assert made == 80


def test_first_error_is_that_of_a_call_in_words() -> None:
    assert first_error([]) == "?"
    assert first_error([NONE_ANSWERED, "KeyError: 'x'\nmore"]) == "KeyError: 'x'"
    retried = "RetryError(<Future at 0x7fe65188e9d0 state=finished raised APIConnectionError>)"
    assert first_error([retried]) == "no answer after all retries (APIConnectionError)"


def test_call_that_dies_counts_as_its_worst() -> None:
    async def die(cap: Cap) -> None:
        async with cap.call(30, 10):
            raise ValueError("hung up")

    cap = Cap(Limits(100))
    for _ in range(2):
        with pytest.raises(ValueError, match="hung up"):
            asyncio.run(die(cap))
    assert cap.used == Spend(80)
    with pytest.raises(CapReached):
        asyncio.run(die(cap))


@given(st.text(max_size=400), st.integers(0, 50))
def test_estimate_is_below_the_worst(text: str, max_new: int) -> None:
    assert estimate_tokens(text, max_new) <= most_tokens(text) + max_new
