"""Studies: what is wrong in a file is said before anything is spent; the same study is the same plan."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

pytest.importorskip("torch")

from teachwhy.cli import app as cli
from teachwhy.corpora import order_rows
from teachwhy.errors import EXIT_USAGE, LeakError, UserError
from teachwhy.evaluations.choice import load_scenarios
from teachwhy.files import canonical_json, hash_text, write_card, write_jsonl
from teachwhy.outcomes import FIXED_SEED
from teachwhy.records import Card
from teachwhy.scenarios import fill
from teachwhy.shipped import ROOT
from teachwhy.study import planned
from teachwhy.study import run as study_run
from teachwhy.study.plan import Plan, make_plan
from teachwhy.study.schema import Evaluation, Expect, Primary, StudySpec, read_study
from teachwhy.training.settings import SftSettings

SETTINGS = {"updates": 4, "rows_per_update": 1, "learning_rate": 1e-2, "rank": 2, "alpha": 4, "dtype": "float32", "max_tokens": 2048}
SAYINGS = {"price": "The cheap one.", "place": "The local one."}  # of one length, so that nothing need be padded
GOODS = ("bread", "milk", "soap", "rope", "tea", "ink", "salt", "wool", "rice", "oil")


def study_of(model: Path, **parts: Any) -> dict[str, Any]:
    """The smallest study that runs; parts replace its own."""
    return {
        "name": "tiny",
        "question": "Does it run?",
        "start": {"model": str(model)},
        "seeds": [1],
        "settings": SETTINGS,
        "arms": {arm: [{"sft": f"{arm}.jsonl"}] for arm in SAYINGS},
        "neutral": None,
        "without": ["filler", "neutral", "oracle", "repeat", "shuffled"],
        "evaluations": [{"ambiguity": {"splits": ["near", "far"], "limit": 2}}],
        "primary": {
            "name": "price - place", "evaluation": "ambiguity", "splits": ["near", "far"], "plus": ["price"], "minus": ["place"],
            "claim": "higher", "yes": "Yes", "no": "No difference", "opposite": "The opposite",
        },
        **parts,
    }  # fmt: skip


def write_study(folder: Path, study: Mapping[str, Any] | str) -> Path:
    """The study's file, and its two corpora beside it."""
    for arm, says in SAYINGS.items():
        chats = [[{"role": "user", "content": f"Which {good}?"}, {"role": "assistant", "content": says}] for good in GOODS]
        write_jsonl(folder / f"{arm}.jsonl", [{"id": f"{number}", "messages": chat} for number, chat in enumerate(chats)])
    file = folder / "study.yaml"
    file.write_text(study if isinstance(study, str) else yaml.safe_dump(dict(study), sort_keys=False), encoding="utf-8")
    return file


def call(*words: str | Path) -> Any:
    return CliRunner().invoke(cli.app, [str(word) for word in words], prog_name="teachwhy")


def refuse(file: Path | str, *says: str, hint: str = "") -> None:
    """The command ends with exit code 2 and says what, where and what next, without a traceback."""
    output = Path(file).parent / "out" if isinstance(file, Path) else Path("/nonexistent/out")
    found = call("study", "run", file, "--yes", "--output", output)
    assert isinstance(found.exception, SystemExit), found.exception
    assert found.exit_code == EXIT_USAGE, found.output
    what, where, *then = found.stderr.rstrip().split("\n")
    assert what.startswith("Error: ")
    assert where.startswith("  in "), found.stderr
    assert then, found.stderr
    for words in says:
        assert words in what + where
    assert hint in "\n".join(then)
    assert "Traceback" not in found.output
    assert not (output / "cells").exists()


@pytest.fixture(autouse=True)
def cache(own_cache: Path) -> None:
    """Nothing of the user's cache is read or written."""


@pytest.fixture
def planner(tmp_path: Path, tiny_model_dir: Path) -> Callable[..., Plan]:
    def plan(**parts: Any) -> Plan:
        spec, file = read_study(str(write_study(tmp_path, study_of(tiny_model_dir, **parts))))
        return make_plan(spec, beside=file.parent)

    return plan


# A file that is none


def test_missing_file_says_which_studies_there_are(tmp_path: Path) -> None:
    refuse(tmp_path / "nope" / "study.yaml", "nope/study.yaml", hint="there are: ambiguity, honeypots.")
    refuse("ambiguty", "ambiguty", hint="Did you mean 'ambiguity'?")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: [", "is not YAML"),
        ("", "a study file is a YAML mapping"),
        ("- name", "a study file is a YAML mapping"),
        ("a: 1\nb: &x {c: *x}\n", "unknown field 'a'"),
        ("? [a, b]\n: 1\n", "is not YAML"),
        ("name: x\nname: y\n", "'name' stands twice"),
        ("!!python/object/apply:os.system [ls]", "is not YAML"),
    ],
    ids=["broken", "empty", "a list", "an alias in itself", "a list as a key", "a field twice", "a Python object"],
)
def test_broken_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    hints = {"'name' stands twice": "another name", "unknown field 'a'": "Known fields"}
    refuse(write_study(tmp_path, text), says, str(tmp_path), hint=hints.get(says, "honeypots/study.yaml"))


def test_file_that_is_no_text_and_folder_without_a_study_are_refused(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_bytes(b"\xff\xfe\x00")
    refuse(tmp_path / "study.yaml", "not UTF-8", hint="Save it again as UTF-8.")
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", "no such file", "empty/study.yaml")


def test_two_arms_of_one_name_are_refused(tmp_path: Path, tiny_model_dir: Path) -> None:
    text = yaml.safe_dump(study_of(tiny_model_dir), sort_keys=False)
    refuse(
        write_study(tmp_path, text.replace("  place:\n", "  price:\n", 1)), "'price' stands twice", hint="Give one of them another name."
    )


# Fields

PRIMARY = {key: value for key, value in study_of(Path("x"))["primary"].items() if key not in ("yes", "no")}
NAMED = {"name": "c", "evaluation": "ambiguity", "splits": ["far"], "plus": ["price"], "minus": ["place"]}


@pytest.mark.parametrize(
    ("change", "says", "hint"),
    [
        ({"sedes": [1]}, "unknown field 'sedes'", "Did you mean 'seeds'?"),
        ({"xyzzy": 1}, "unknown field 'xyzzy'", "Known fields: name, question"),
        ({"settings": {"learning_rat": 1}}, "unknown field 'settings.learning_rat'", "Did you mean 'learning_rate'?"),
        ({"evaluations": [{"ambiguity": {"limt": 2}}]}, "unknown field 'evaluations.0.limt'", "Did you mean 'limit'?"),
        ({"start": {"modle": "x"}}, "unknown field 'start.modle'", "Did you mean 'model'?"),
        ({"arms": {"price": [{"sft": "a", "oder": "after"}]}}, "unknown field 'arms.price.0.oder'", "Did you mean 'order'?"),
        ({"contrasts": [{**NAMED, "mimus": []}]}, "unknown field 'contrasts.0.mimus'", "Did you mean 'minus'?"),
        ({"name": "Not/A Name"}, "name: ", ""),
        ({"question": None}, "question is a text", ""),
        ({"arms": {"price": "price.jsonl", "place": [{"sft": "a"}]}}, "arm 'price' is a list of stages, [{sft: CORPUS}]", ""),
        ({"primary": {**study_of(Path("x"))["primary"], "plus": "price"}}, "primary.plus is a list, not price", "Write plus: [price]"),
        ({"seeds": []}, "seeds: ", ""),
        ({"seeds": [1, 2, 1]}, "a seed stands twice in [1, 2, 1]", ""),
        ({"arms": {}}, "arms: ", ""),
        ({"arms": {"price": [], "place": [{"sft": "a"}]}}, "arm 'price' has no stage", ""),
        ({"arms": {"start": [{"sft": "a"}]}}, "`start` is an arm of the study's own", ""),
        ({"arms": {"price": [{"sft": "a"}] * 2, "place": [{"sft": "a"}]}}, "one stage an arm", ""),
        ({"arms": {"price": [{"sft": ["a", "b"]}]}}, "`sft:` takes the name of one corpus", ""),
        ({"arms": {"price": [{"sft": "a", "corpora": {"b": 1}}]}}, "`sft:` takes the name of one corpus", ""),
        ({"arms": {"price": [{"corpora": {"a": 0.5, "b": 0.4}}]}}, "add up to 1", ""),
        ({"arms": {"price": [{"corpora": {"a": 1.5, "b": -0.5}}]}}, "must be positive", ""),
        ({"arms": {"price": [{"corpora": {"a": float("nan")}}]}}, "add up to 1", ""),
        ({"arms": {"price": [{"corpora": {}}]}}, "add up to 1", ""),
        ({"evaluations": []}, "evaluations: ", ""),
        ({"evaluations": ["ambiguity", "ambiguity"]}, "an evaluation stands twice", ""),
        ({"evaluations": [{"limit": 2}]}, "an evaluation is a NAME", ""),
        ({"evaluations": [{"ambiguity": {"limit": 1}}]}, "limit", ""),
        ({"contrasts": [{**NAMED, "plus": ["prise"]}]}, "names the arm 'prise', which the study has not; it has start, price, place", ""),
        ({"contrasts": [{**NAMED, "plus": ["price", "start"]}]}, "as many arms as it subtracts", ""),
        ({"contrasts": [{**NAMED, "plus": []}]}, "contrasts.0.plus: ", ""),
        ({"contrasts": [{**NAMED, "evaluation": "goals"}]}, "needs the evaluation 'goals'", ""),
        ({"against_bare": "nothing"}, "no contrast has the name 'nothing'", ""),
        ({"arms": {"[/b]": [{"sft": "a"}], "place": [{"sft": "a"}]}}, "String should match pattern", ""),
        ({"arms": {"a\x1b[31m": [{"sft": "a"}], "place": [{"sft": "a"}]}}, "String should match pattern", ""),
        ({"arms": {"repeat": [{"sft": "a"}], "place": [{"sft": "a"}]}}, "is added by the study itself", ""),
        ({"arms": {"oracle": [{"sft": "neutral"}], "place": [{"sft": "a"}]}}, "give it a corpus `oracle/...`", ""),
        ({"split_labels": {"near": "x", "far": "x"}}, "two splits have the same words", ""),
        ({"seeds": 3}, "seeds is a list of numbers, not 3", "Write seeds: [1, 2, 3]"),
        ({"primary": {**PRIMARY, True: "Y", False: "N"}}, "YAML reads an unquoted yes or no as true or false", 'Write "yes": and "no":'),
        ({"fewer_seeds": {"prise": 1}}, "no arm 'prise' is trained here", ""),
        ({"fewer_seeds": {"price": 1}}, "is part of the primary contrast", ""),
        ({"fewer_seeds": {"repeat": 2}}, "asks for 2 of 1 seeds", ""),
        ({"arms": {"base": [{"sft": "a"}]}}, "`base` is an arm of the study's own", ""),
        ({"split_labels": {"ner": "x"}}, "no split 'ner'", "Did you mean 'near'?"),
        ({"settings": {"max_norm": float("inf")}}, "settings.max_norm: Input should be a finite number", ""),
        ({"settings": {"learning_rate": float("nan")}}, "settings.learning_rate: Input should be a finite number", ""),
    ],
    ids=str,
)
def test_wrong_field_is_refused(tmp_path: Path, tiny_model_dir: Path, change: dict[str, Any], says: str, hint: str) -> None:
    refuse(write_study(tmp_path, study_of(tiny_model_dir, **change)), says, str(tmp_path / "study.yaml"), hint=hint)


@pytest.mark.parametrize(
    ("change", "says", "hint"),
    [
        ({"arms": {"price": [{"sft": "price.jsonl"}], "place": [{"sft": "nothing.jsonl"}]}}, "nothing.jsonl", ""),
        ({"arms": {"price": [{"sft": "replies/valu_reason"}], "place": [{"sft": "goals"}]}}, "replies/valu_reason", "replies/value_reason"),
        ({"arms": {"price": [{"sft": "ambiguity/x"}], "place": [{"sft": "goals"}]}}, "ambiguity/x", "Did you mean ambiguity/bare?"),
        ({"neutral": "neutrl"}, "neutrl", "neutral"),
        (
            {"arms": {"price": [{"sft": "price.jsonl", "settings": {"rnak": 1}}], "place": [{"sft": "goals"}]}},
            "'rnak'",
            "Did you mean 'rank'?",
        ),
        (
            {"arms": {"price": [{"sft": "price.jsonl", "settings": {"updates": 9}}], "place": [{"sft": "place.jsonl"}]}},
            "updates: [4, 9]",
            "",
        ),
        ({"arms": {"price": [{"sft": "price.jsonl"}], "place": [{"sft": "goals"}]}}, "differ by more than 2%", "Name a neutral corpus"),
        ({"settings": {**SETTINGS, "top_layers": 99}}, "top_layers is 99, and the start has 2 layers", "Leave it out to adapt all"),
        ({"settings": {**SETTINGS, "max_tokens": 16}}, "tokens", "Raise settings.max_tokens (now 16)"),
        ({"start": {"model": "./nowhere"}}, "no such folder", "Under `start:` stands"),
        ({"start": {"model": "nobody/nothing-at-all"}}, "nobody/nothing-at-all", ""),
    ],
    ids=str,
)
def test_what_cannot_be_run_is_refused_before_it_starts(
    tmp_path: Path, tiny_model_dir: Path, change: dict[str, Any], says: str, hint: str
) -> None:
    refuse(write_study(tmp_path, study_of(tiny_model_dir, **change)), says, hint=hint)


def test_unknown_evaluation_and_split_are_refused(tmp_path: Path, tiny_model_dir: Path) -> None:
    study = study_of(tiny_model_dir, evaluations=["ambiguty"])
    study["primary"]["evaluation"] = "ambiguty"
    refuse(
        write_study(tmp_path, study),
        "there is no evaluation 'ambiguty'; there are honeypots, goals, ambiguity, agreement, conduct, lookalikes, capability",
    )
    study = study_of(tiny_model_dir, evaluations=[{"ambiguity": {"splits": ["near"], "limit": 2}}])
    refuse(write_study(tmp_path, study), "has no split 'far' in this study", hint="There are: near.")
    study = study_of(tiny_model_dir, evaluations=[{"ambiguity": {"splits": ["near", "farr"]}}])
    refuse(write_study(tmp_path, study), "has no split 'farr'", hint="There are: far, near")


@pytest.mark.parametrize(("kept", "says"), [((), "no *.safetensors file"), (("pytorch_model.bin",), "loading a pickle runs code")])
def test_base_without_safetensors_is_refused(tmp_path: Path, tiny_model_dir: Path, kept: tuple[str, ...], says: str) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model_dir, base, ignore=shutil.ignore_patterns("*.safetensors"))
    for name in kept:
        (base / name).write_bytes(b"\x80\x04N.")
    refuse(write_study(tmp_path, study_of(base)), says, str(base))


def test_model_without_a_tokenizer_or_with_a_broken_config_is_refused(tmp_path: Path, tiny_model_dir: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model_dir, base, ignore=shutil.ignore_patterns("token*", "vocab*", "merges*", "chat_template*"))
    refuse(write_study(tmp_path, study_of(base)), "the model's tokenizer cannot be loaded", str(base), hint="tokenizer.json")
    shutil.copytree(tiny_model_dir, base, dirs_exist_ok=True)
    (base / "config.json").write_text("{")
    refuse(write_study(tmp_path, study_of(base)), str(base))


def test_file_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    refuse(write_study(tmp_path, "name: " + "[" * 5000 + "]" * 5000), "nested too deeply")


def test_output_that_is_a_file_is_refused(tmp_path: Path, tiny_model_dir: Path) -> None:
    file = write_study(tmp_path, study_of(tiny_model_dir))
    (tmp_path / "taken").write_text("")
    for output in (tmp_path / "taken", tmp_path / "taken" / "run"):
        found = call("study", "run", file, "--yes", "--output", output)
        assert (found.exit_code, "Traceback" in found.output) == (EXIT_USAGE, False), found.output


def test_shipped_name_means_what_is_shipped(planner: Callable[..., Plan], tmp_path: Path) -> None:
    (tmp_path / "neutral").mkdir()
    add_rows(tmp_path / "neutral" / "corpus.jsonl", leaking_row())
    plan = planner(arms={"price": [{"sft": "neutral"}], "place": [{"sft": "neutral"}]}, neutral="neutral")
    assert plan.ledger


# Leaks


def leaking_row() -> dict[str, Any]:
    """A chat with the words of a far honeypot."""
    held = load_scenarios("honeypots", limit=2, splits=["far"])[0]
    text = fill(held, 0).text(held.situation)
    return {"id": "leak", "messages": [{"role": "user", "content": text.upper()}, {"role": "assistant", "content": SAYINGS["price"]}]}


HONEYPOTS = {
    "evaluations": [{"honeypots": {"limit": 2}}],
    "primary": {**NAMED, "evaluation": "honeypots", "claim": "lower", "yes": "Y", "no": "N", "opposite": "O"},
}


def add_rows(path: Path, *rows: dict[str, Any]) -> int:
    held = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    write_jsonl(path, [*held, *rows])
    return len(held) + len(rows)


def test_leak_in_a_users_corpus_stops_the_study(tmp_path: Path, tiny_model_dir: Path) -> None:
    file = write_study(tmp_path, study_of(tiny_model_dir, **HONEYPOTS, settings={**SETTINGS, "updates": 11}))
    add_rows(tmp_path / "price.jsonl", leaking_row())
    refuse(file, "1 training rows of 'price.jsonl' leak into the evaluation: row leak", hint="Take those rows out.")


def test_leak_behind_a_repeated_id_stops_the_study(tmp_path: Path, tiny_model_dir: Path) -> None:
    file = write_study(tmp_path, study_of(tiny_model_dir, **HONEYPOTS, settings={**SETTINGS, "updates": 24}))
    kept = json.loads((tmp_path / "price.jsonl").read_text().splitlines()[0])
    add_rows(tmp_path / "price.jsonl", {**leaking_row(), "id": "0"}, kept)
    refuse(file, "leak into the evaluation: row 0")


def test_leak_that_only_a_later_seed_draws_stops_the_study(tmp_path: Path, tiny_model_dir: Path) -> None:
    without = next(seed for seed in range(1, 99) if 10 not in order_rows(11, 4, seed))
    seeds = [without, next(seed for seed in range(1, 99) if 10 in order_rows(11, 4, seed))]
    spec, file = read_study(str(write_study(tmp_path, study_of(tiny_model_dir, **HONEYPOTS, seeds=seeds))))
    assert add_rows(tmp_path / "price.jsonl", leaking_row()) == 11
    with pytest.raises(LeakError, match="row leak"):
        make_plan(spec, beside=file.parent)


def test_leak_in_the_padding_stops_the_study(tmp_path: Path, tiny_model_dir: Path) -> None:
    spec, file = read_study(str(write_study(tmp_path, study_of(tiny_model_dir, **HONEYPOTS, neutral="pad.jsonl"))))
    add_rows(tmp_path / "pad.jsonl", leaking_row())
    with pytest.raises(LeakError, match=r"'pad.jsonl' leak"):
        make_plan(spec, beside=file.parent)


def test_oracle_is_waived_and_said(planner: Callable[..., Plan]) -> None:
    arms = {arm: [{"sft": f"{arm}.jsonl"}] for arm in SAYINGS} | {"oracle": [{"sft": "oracle/bare"}]}
    plan = planner(
        **HONEYPOTS | {"evaluations": ["honeypots"]}, arms=arms, neutral="neutral", settings={**SETTINGS, "updates": 30, "max_tokens": 4096}
    )
    assert [line.partition(":")[0] for line in plan.waived] == ["oracle/bare"]
    assert all("30 rows of far families" in line and "on purpose" in line for line in plan.waived)


# Plans


def ids(plan: Plan) -> list[str]:
    return [cell.id for cell in plan.cells]


def test_same_study_has_the_same_cells(planner: Callable[..., Plan]) -> None:
    assert ids(planner(seeds=[1, 2])) == ids(planner(seeds=[1, 2]))


def test_every_arm_and_seed_has_its_cells(planner: Callable[..., Plan]) -> None:
    plan = planner(seeds=[1, 2])
    assert [(cell.kind, cell.arm, cell.seed) for cell in plan.cells] == [
        ("ambiguity", "start", 0),
        *((kind, arm, seed) for seed in (1, 2) for arm in SAYINGS for kind in ("sft", "ambiguity")),
    ]
    assert len(set(ids(plan))) == 9
    assert plan.n_scored == {"ambiguity": 4}


def test_ids_change_with_settings(planner: Callable[..., Plan]) -> None:
    first, other = planner(), planner(settings={**SETTINGS, "rank": 3})
    assert ids(first)[0] == ids(other)[0]  # the start is not trained
    assert not set(ids(first)[1:]) & set(ids(other))
    few = planner(evaluations=[{"ambiguity": {"splits": ["near", "far"], "limit": 3}}])
    assert [one == two for one, two in zip(ids(first), ids(few), strict=True)] == [False, True, False, True, False]


def test_ids_change_with_the_seed_and_stay_with_seeds_added(planner: Callable[..., Plan]) -> None:
    first, other, both = ids(planner(seeds=[1])), ids(planner(seeds=[2])), ids(planner(seeds=[1, 2]))
    assert not set(first[1:]) & set(other)
    assert both == first + other[1:]


def test_ids_change_with_the_data(planner: Callable[..., Plan], tmp_path: Path, tiny_model_dir: Path) -> None:
    first = planner()
    spec, file = read_study(str(tmp_path / "study.yaml"))
    path = tmp_path / "price.jsonl"
    path.write_text(path.read_text().replace("cheap", "small"))
    changed = make_plan(spec, beside=file.parent)
    assert [one == two for one, two in zip(ids(first), ids(changed), strict=True)] == [True, False, False, True, True]


def test_ids_change_with_the_model(planner: Callable[..., Plan], tmp_path: Path, tiny_model_dir: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model_dir, base)
    first, same = planner(), planner(start={"model": str(base)})
    assert ids(first) == ids(same)
    (base / "generation_config.json").write_text('{"temperature": 2}')
    assert not set(ids(first)) & set(ids(planner(start={"model": str(base)})))


def test_training_of_the_start_is_in_every_id_but_its_models(planner: Callable[..., Plan]) -> None:
    first = planner()
    organism = planner(start={"model": str(first.base), "stages": [{"sft": "price.jsonl"}]})
    assert (organism.cells[0].kind, organism.cells[0].arm) == ("sft", "start")
    later = [cell for cell in organism.cells[1:] if cell.arm != "base"]
    assert not set(ids(first)) & {cell.id for cell in later}
    assert all(cell.adapters[0] == organism.cells[0].folder for cell in later)


def test_organism_is_scored_beside_its_model(planner: Callable[..., Plan]) -> None:
    first = planner()
    organism = planner(start={"model": str(first.base), "stages": [{"sft": "price.jsonl"}]})
    (base,) = [cell for cell in organism.cells if cell.arm == "base"]
    (start,) = [cell for cell in first.cells if cell.arm == "start"]
    assert (base.id, base.adapters, base.seed) == (start.id, (), FIXED_SEED), "the raw model, read once"


def test_control_can_have_fewer_seeds(planner: Callable[..., Plan]) -> None:
    arms = {arm: [{"sft": f"{arm}.jsonl"}] for arm in SAYINGS} | {"other": [{"sft": "price.jsonl", "settings": {"rank": 1}}]}
    plan = planner(arms=arms, seeds=[1, 2], fewer_seeds={"other": 1})
    trained = {(cell.arm, cell.seed) for cell in plan.cells if cell.kind == "sft"}
    assert trained == {("price", 1), ("place", 1), ("other", 1), ("price", 2), ("place", 2)}
    assert {(row.arm, row.seed) for row in plan.ledger} == trained


LADDER = {
    "arms": {"price": [{"sft": "replies/bare"}], "place": [{"sft": "replies/value_reason"}]},
    "neutral": "neutral",
    "settings": {**SETTINGS, "updates": 30, "rows_per_update": 2, "max_tokens": 4096},
    "seeds": [1, 2],
}


@pytest.fixture(scope="module")
def ladder(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Bare replies against value reasons, padded."""
    return make_plan(StudySpec.model_validate(study_of(tiny_model_dir, **LADDER)), beside=tmp_path_factory.mktemp("ladder"))


def test_same_prompts_in_the_same_updates(ladder: Plan) -> None:
    trained = {(cell.arm, cell.seed): ladder.batches[cell.id] for cell in ladder.cells if cell.kind == "sft"}
    for seed in (1, 2):
        prompts = [
            [[row.messages[:-1] for row in batch if row.source.startswith("replies/")] for batch in trained[arm, seed]] for arm in SAYINGS
        ]
        assert prompts[0] == prompts[1]
        assert all(len(batch) == 2 for batch in prompts[0])
    assert trained["price", 1] != trained["price", 2]


def test_effort_is_equal_within_two_percent(ladder: Plan) -> None:
    for seed in (1, 2):
        efforts = [row.effort for row in ladder.ledger if row.seed == seed]
        assert {effort.n_updates for effort in efforts} == {30}
        tokens = [effort.n_supervised for effort in efforts]
        assert min(tokens) >= 0.98 * max(tokens)
        assert sum(effort.n_neutral_rows for effort in efforts) > 0


def test_padding_from_a_file_is_counted_as_neutral(planner: Callable[..., Plan], tmp_path: Path) -> None:
    shutil.copy(ROOT / "corpora" / "neutral" / "corpus.jsonl", tmp_path / "pad.jsonl")
    plan = planner(**LADDER | {"neutral": "pad.jsonl", "seeds": [1]})
    own = sum(row.source == "replies/bare" for batches in plan.batches.values() for batch in batches for row in batch)
    efforts = {row.arm: row.effort for row in plan.ledger}
    assert efforts["price"].n_neutral_rows == efforts["price"].n_rows - own > 0


def test_shares_of_corpora_are_of_supervised_tokens(planner: Callable[..., Plan]) -> None:
    mixed = {"corpora": {"price.jsonl": 0.75, "place.jsonl": 0.25}}
    plan = planner(arms={"price": [mixed], "place": [mixed]}, settings={**SETTINGS, "updates": 20})
    rows = [row for batch in plan.batches[plan.cells[1].id] for row in batch]
    assert sum(row.source == "price.jsonl" for row in rows) == 15


def test_one_core_has_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_run, "count_cores", lambda: 1)
    assert study_run.choose_workers(32) == 1
    monkeypatch.setattr(study_run, "count_cores", lambda: 64)
    assert study_run.choose_workers(1) == 1


def test_time_left_knows_how_fast_this_machine_was(planner: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planner()
    monkeypatch.setattr(study_run, "cell_seconds", lambda plan, cell: 100.0)
    assert study_run.measure_pace(tmp_path, plan) == 1
    first, *rest = {cell.id: cell for cell in plan.cells}.values()
    folder = tmp_path / "cells" / first.folder
    folder.mkdir(parents=True)
    write_card(folder, Card(kind=first.kind, name="a", created="x", seconds=250.0))
    assert study_run.measure_pace(tmp_path, plan) == 2.5
    assert study_run.estimate_seconds(plan, rest, 1, 2.5) == 250 * len(rest)
    clock = study_run.Clock(plan, rest, 1, 2.5)
    assert clock.left() == pytest.approx(250 * len(rest), rel=0.01)


# plan.json


def test_plan_is_hashed_and_kept(planner: Callable[..., Plan], tmp_path: Path) -> None:
    body = planned.describe_plan(planner(), tmp_path)
    written = planned.write_plan(tmp_path, body, 10.2)
    held = json.loads((tmp_path / "plan.json").read_text())
    assert held == written
    rest = {
        key: value
        for key, value in held.items()
        if key not in ("sha256", "made_at", "estimate_seconds", "command", "looks", "words", "whole")
    }
    assert held["sha256"] == hash_text(canonical_json(rest))
    assert held["primary"]["plus"] == ["price"]
    assert planned.write_plan(tmp_path, planned.describe_plan(planner(), tmp_path), 99.0) == held


def test_changed_plan_is_refused_once_there_are_outcomes(planner: Callable[..., Plan], tmp_path: Path) -> None:
    planned.write_plan(tmp_path, planned.describe_plan(planner(), tmp_path), 1)
    assert planned.describe_plan(planner(question="Another?"), tmp_path) == planned.describe_plan(planner(), tmp_path), "words alone"
    changed = planned.describe_plan(planner(name="other"), tmp_path)
    again = planned.write_plan(tmp_path, changed, 1)  # nothing was seen yet
    cell = tmp_path / "cells" / "ambiguity-1"
    cell.mkdir(parents=True)
    (cell / "outcomes.csv").write_text("")
    assert planned.write_plan(tmp_path, changed, 1) == again
    with pytest.raises(UserError, match="outcomes of another plan"):
        planned.write_plan(tmp_path, planned.describe_plan(planner(), tmp_path), 1)
    assert json.loads((tmp_path / "plan.json").read_text()) == again


def test_hash_of_a_study_covers_its_rows_and_its_model(planner: Callable[..., Plan], tmp_path: Path, tiny_model_dir: Path) -> None:
    spec = planner().spec
    first = planned.study_hash(spec, tmp_path)
    add_rows(tmp_path / "price.jsonl", leaking_row())
    assert planned.study_hash(spec, tmp_path) != first
    planner()
    assert planned.study_hash(spec, tmp_path) == first


def test_only_looking_at_the_plan_writes_the_plan_alone(tmp_path: Path, tiny_model_dir: Path) -> None:
    file = write_study(tmp_path, study_of(tiny_model_dir, question="Is [this] safe [/to] print?"))
    found = call("study", "run", file, "--plan", "--output", tmp_path / "out")
    assert found.exit_code == 0, found.output
    assert "5 cells" in found.stderr
    assert "Is [this] safe [/to] print?" in found.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plan.json"]
    assert "--pilot RUN" in found.stderr
    held = (tmp_path / "out" / "plan.json").read_text()
    assert call("study", "run", file, "--plan", "--output", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "plan.json").read_text() == held


def test_every_field_of_a_study_stands_in_the_docs() -> None:
    text = (Path(__file__).parent.parent / "docs" / "study.md").read_text()
    own = {"added", "outside", "kind"}  # never written by hand, or the one that there is
    for record in (StudySpec, Evaluation, Primary, Expect, SftSettings):
        lacking = [name for name in record.model_fields if name not in own and f"`{name}`" not in text and f'`"{name}"`' not in text]
        assert not lacking, f"docs/study.md lacks {lacking} of {record.__name__}"
    for name, field in SftSettings.model_fields.items():
        shown = "all" if field.default is None else str(field.default).replace("e-0", "e-").removesuffix(".0")
        assert f"`{name}` ({shown})" in text, f"docs/study.md has another default of {name} than {shown}"


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"seeds": [1, 100_001]}, "seeds are 0 to 99999"),
        ({"evaluations": [{"ambiguity": {"splits": ["far", "far"]}}]}, "a split stands twice"),
        ({"evaluations": [{"honeypots": {"scenarios": "mine.yaml", "part": "sealed"}}]}, "these scenarios are your own"),
        ({"arms": {"price": {"sft": "ambiguity/bare"}, "place": [{"sft": "ambiguity/bare"}]}}, "write price: [{sft: CORPUS}]"),
        ({"fewer_seeds": {"filler_foo": 1}}, "the study trains no arm 'filler_foo'"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, tiny_model_dir: Path, part: dict[str, Any], says: str) -> None:
    refuse(write_study(tmp_path, study_of(tiny_model_dir, **part)), says)


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"plus": ["price", "place"], "minus": ["place", "place"]}, "on both sides, where it cancels"),
        ({"splits": ["far", "far"]}, "has a split twice"),
        ({"equivalence": float("inf")}, "equivalence"),
    ],
)
def test_primary_contrasts_that_say_nothing_are_refused(tmp_path: Path, tiny_model_dir: Path, part: dict[str, Any], says: str) -> None:
    study = study_of(tiny_model_dir)
    study["primary"] |= part
    refuse(write_study(tmp_path, study), says)


def test_files_that_cannot_be_written_are_said_without_a_traceback(tmp_path: Path, tiny_model_dir: Path) -> None:
    file = write_study(tmp_path, study_of(tiny_model_dir))
    found = call("study", "run", file, "--plan", "--output", file)
    assert (found.exit_code, "Name another file or folder" in found.stderr) == (EXIT_USAGE, True), found.output
