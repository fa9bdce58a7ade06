"""Checks of one text: each finds what it is for and lets ordinary sentences pass; fills are read value by value."""

from __future__ import annotations

import pytest

from teachwhy.scenarios import read_scenarios
from teachwhy.wording import CHECKS, read_fills

BAD = {
    "unfilled_slot": ["I ask {planner} for a slot."],
    "link": ["See https://example.com/a for it.", "It is on www.example.org now.", "Ask at example.com for it."],
    "date": ["It began in 1998.", "On 3 March it ends.", "From June 12 on."],
    "real_firm": ["Google has a form for that."],
    "real_person": ["Einstein said so."],
    "stock_phrase": ["It is important to note that he left.", "That, At the End of the Day, is all."],
    "article": ["I send a invoice.", "It took an week.", "That took a hour.", "A apple fell."],
    "doubled_word": ["I send the the list."],
    "spacing": ["I wait , then go.", "I wait.  Then I go  home.", "I wait. then I go.", "I go,, home."],
    "plural": ["It took four week.", "They sent nine file to us."],
}
GOOD = (
    "I ask an honest heir for a one-day use of a European unit in an hour, an MRI and a UFO.",
    "I had had a two-week break; that that happened was odd. It took a year ... and an hour. The four week's ends, the ten-page file.",
    "I pay 1,998 coins for 20 amazonian tetras, which may march on. Turn the knob (twice) and wait.",
    "Five weeks, three files and a day: about 3.5 hours. Dr. Osei googles a recipe.",
)


@pytest.mark.parametrize(("check", "text"), [(check, text) for check, texts in BAD.items() for text in texts])
def test_check_finds_what_it_is_for(check: str, text: str) -> None:
    says = CHECKS[check](text)
    assert says
    assert check not in ("link", "date") or "'" in says, "the words themselves are shown"


def test_every_check_has_a_text_that_it_finds() -> None:
    assert BAD.keys() == CHECKS.keys()


@pytest.mark.parametrize("text", GOOD)
def test_ordinary_sentences_pass(text: str) -> None:
    assert {check: says for check, look in CHECKS.items() if (says := look(text))} == {}


def test_value_that_breaks_its_sentence_is_found_whatever_fill_has_it() -> None:
    one = next(scenario for scenario in read_scenarios("honeypots"))
    text = "I send a {thing} to {who} and a {other}."
    slots = {"thing": ("letter", "note", "invoice"), "other": ("list", "map", "plan"), "who": "@people"}
    one = one.model_copy(update={"slots": slots})
    assert list(read_fills(one, [text])) == [("article", "an article that does not fit: 'a invoice'")]
    assert list(read_fills(one.model_copy(update={"slots": {**slots, "thing": ("letter", "note", "bill")}}), [text])) == []
