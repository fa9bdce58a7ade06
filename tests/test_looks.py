"""Sealed scenarios: half of every set, looked at on purpose alone, and counted."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from teachwhy.errors import UserError
from teachwhy.evaluations import WRITTEN
from teachwhy.evaluations.choice import load_scenarios
from teachwhy.study.looks import count_looks, refuse_sealed, sealed_sets
from test_automatic import spec_of


@pytest.mark.parametrize("name", WRITTEN)
def test_dev_and_sealed_halves_are_the_whole_and_of_every_family(name: str) -> None:
    whole, dev, sealed = (load_scenarios(name, part=part) for part in ("all", "dev", "sealed"))  # type: ignore[arg-type]
    assert sorted(one.id for one in [*dev, *sealed]) == [one.id for one in whole]
    halves = [Counter((one.split, one.family) for one in half) for half in (dev, sealed)]
    assert halves[0].keys() == halves[1].keys()
    assert all(0 <= halves[0][key] - halves[1][key] <= 1 for key in halves[0])


@pytest.mark.parametrize("name", ["ambiguity", "capability"])
def test_what_code_makes_has_no_sealed_half(name: str) -> None:
    assert load_scenarios(name, part="dev") == load_scenarios(name, part="sealed") == load_scenarios(name)


def study(part: str) -> Any:
    return spec_of(evaluations=[{"honeypots": {"part": part}}, "conduct"])


def test_sealed_half_asks_for_a_word() -> None:
    assert sealed_sets(study("dev")) == []
    refuse_sealed(study("dev"), unseal=False)
    for part in ("sealed", "all"):
        assert sealed_sets(study(part)) == ["honeypots"]
        with pytest.raises(UserError, match="sealed half of honeypots") as caught:
            refuse_sealed(study(part), unseal=False)
        assert "--unseal" in (caught.value.hint or "")
        refuse_sealed(study(part), unseal=True)


def test_looks_are_counted_and_a_damaged_count_begins_anew(own_cache: Path) -> None:
    assert count_looks([]) == {}
    assert count_looks(["honeypots"]) == {"honeypots": 1}
    assert count_looks(["conduct", "honeypots"]) == {"conduct": 1, "honeypots": 2}
    (path,) = own_cache.rglob("looks.json")
    assert json.loads(path.read_text()) == {"conduct": 1, "honeypots": 2}
    path.write_text("nonsense")
    assert count_looks(["honeypots"]) == {"honeypots": 1}
