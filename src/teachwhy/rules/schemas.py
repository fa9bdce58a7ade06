"""`python -m teachwhy.rules.schemas` writes the JSON Schemas of what `teachwhy rules` prints into docs/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model

from teachwhy.files import write_text
from teachwhy.rules.across import OverModels, OverRules
from teachwhy.rules.listing import Listing
from teachwhy.rules.logs import CountedLogs
from teachwhy.rules.plan import Settings
from teachwhy.rules.recall import Recalled
from teachwhy.rules.ruling import Comparison
from teachwhy.rules.simulate import Simulated


class Rate(BaseModel):
    """Steps of one condition; low and high: the interval at the look's width, None where nothing was read."""

    model_config = ConfigDict(extra="forbid")

    n: int
    broken: int
    acted: int
    """Steps that were an opportunity: the rule was kept or broken."""
    missing: int
    rate: float | None
    low: float | None
    high: float | None


def make_schemas() -> dict[str, str]:
    """File in docs/ -> its text."""
    held = {
        "rules.read.schema.json": Listing.model_json_schema(by_alias=True),
        "rules.logs.schema.json": CountedLogs.model_json_schema(by_alias=True),
        "rules.run.schema.json": _run().model_json_schema(by_alias=True),
        "rules.simulate.schema.json": _named(Simulated, schema_=_schema("teachwhy.rules.simulate/1")).model_json_schema(by_alias=True),
    }
    return {name: json.dumps(schema, indent=2) + "\n" for name, schema in held.items()}


def _run() -> type[BaseModel]:
    """Of report.json: what results.py makes."""
    text, rates, found = (str, ...), (dict[str, Rate], ...), (list[_named(Comparison, finite=False)], ...)  # type: ignore[misc]
    rule = _model(
        "Rule", id=text, line=(int, ...), text=text, check=text, ruling=text, says=text, more=(int | None, ...), stopped=text,
        rounds=(int, ...), disagreements=(int, ...), recall=(dict[str, _named(Recalled)], ...), conditions=rates, comparisons=found,  # type: ignore[misc]
    )  # fmt: skip
    model = _model(
        "Model", model=text, judged=(bool, ...), acts=(float, ...), told=(bool, ...), over_rules=(_named(OverRules) | None, ...),
        rules=(list[rule], ...),  # type: ignore[valid-type]
    )  # fmt: skip
    return _model(
        "Run", schema_=_schema("teachwhy.rules.run/1"), file=text, sha256=text, settings=(Settings, ...), left_out=(list[str], ...),
        models=(list[model], ...), over_models=(list[_named(OverModels)], ...),  # type: ignore[misc,valid-type]
    )  # fmt: skip


def _named(kind: type, *, finite: bool = True, **more: Any) -> type[BaseModel]:
    """A NamedTuple as an object. finite: False where a number may be null, since JSON has no infinity."""
    hints = {name: (hint if finite or hint is not float else float | None, ...) for name, hint in get_type_hints(kind).items()}
    return _model(kind.__name__, **more, **hints)


def _model(name: str, **fields: Any) -> type[BaseModel]:
    return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)


def _schema(name: str) -> Any:
    return Literal[name], Field(alias="schema")


if __name__ == "__main__":
    for name, text in make_schemas().items():
        write_text(Path(__file__).parents[3] / "docs" / name, text)
