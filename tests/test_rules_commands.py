"""Command lines: what would run, with which words and environment; nothing is run, and nothing makes the reader fail."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teachwhy.rules.commands import MAX_COMMANDS, MAX_EXPANDED, Command, parse_commands


def argvs(text: str) -> list[str]:
    return [" ".join(command.argv) for command in parse_commands(text)]


def last(text: str) -> Command:
    return parse_commands(text)[-1]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ls -la | grep x", ["ls -la", "grep x"]),
        ("cd /tmp && make || git push; true", ["cd /tmp", "make", "git push", "true"]),
        ("(git push)", ["git push"]),
        ("{ git push; }", ["git push"]),
        ("! git push", ["git push"]),
        ("git push &", ["git push"]),
        ("ls > out 2>&1 && git push", ["ls", "git push"]),
        ("if test -f x; then git push; else ls; fi", ["test -f x", "git push", "ls"]),
        ("for i in a b; do git add $i; done", ["git add $i"]),
        ("while read l; do git push; done < f", ["read l", "git push"]),
        ("case $x in a) git push;; *) ls;; esac", ["git push", "ls"]),
        ("# git push\nls # git push", ["ls"]),
        ("echo 'git push'", ["echo git push"]),
        ("echo `git push`", ["git push", "echo `git push`"]),
        ('echo "now $(git push) done"', ["git push", "echo now $(git push) done"]),
        ("x=$(git push)", ["git push"]),
        ("diff <(git push) b", ["git push", "diff <(git push) b"]),
        ("/usr/bin/git push", ["/usr/bin/git push"]),
        ("\\git push", ["git push"]),
        ("'git' \"push\"", ["git push"]),
        ("git pu''sh", ["git push"]),
        ("git \\\n  push", ["git push"]),
        ("f() { git push; }", []),
        ("f() { git push; }; f", ["f", "git push"]),
        ("function g { git push; }\ng", ["g", "git push"]),
        ("alias g='git push'; g origin", ["alias g=git push", "git push origin"]),
        ("bash -c 'git push; ls'", ["bash -c git push; ls", "git push", "ls"]),
        ("sh -ec 'git push'", ["sh -ec git push", "git push"]),
        ("bash script.sh -c 'git push'", ["bash script.sh -c git push"]),
        ("eval 'git push'", ["eval git push", "git push"]),
        ("bash <<'EOF'\ngit push\nEOF", ["bash", "git push"]),
        ("cat <<'EOF'\ngit push\nEOF", ["cat"]),
        ("bash <<< 'git push'", ["bash", "git push"]),
        ("timeout -k 5 10 git push", ["timeout -k 5 10 git push", "git push"]),
        ("nohup nice -n 5 git push", ["nohup nice -n 5 git push", "nice -n 5 git push", "git push"]),
        ("sudo -u me git push", ["sudo -u me git push", "git push"]),
        ("ls | xargs -n 1 git add", ["ls", "xargs -n 1 git add", "git add"]),
        ("find . -exec grep -l x {} +", ["find . -exec grep -l x {} +", "grep -l x {}"]),
        ("env -i A=b git push", ["env -i A=b git push", "git push"]),
        ("git commit -F - <<EOF\nmsg\nEOF", ["git commit -F -"]),
        ("$'git' push", ["git push"]),
        ("A=push; git $A", ["git push"]),
        ("git push", ["git push"]),
        ("", []),
        ("   \n\t", []),
    ],
)
def test_what_would_run(text: str, wanted: list[str]) -> None:
    assert argvs(text) == wanted


@pytest.mark.parametrize(
    ("text", "env"),
    [
        ("NO_COLOR=1 ls", {"NO_COLOR": "1"}),
        ("export NO_COLOR=1; ls", {"NO_COLOR": "1"}),
        ("NO_COLOR=1; ls", {}),
        ("NO_COLOR=1; export NO_COLOR; ls", {"NO_COLOR": "1"}),
        ("export NO_COLOR; ls", {}),
        ("declare -x NO_COLOR=1; ls", {"NO_COLOR": "1"}),
        ("export NO_COLOR=1; unset NO_COLOR; ls", {}),
        ("export NO_COLOR=1; NO_COLOR=0; ls", {"NO_COLOR": "0"}),
        ("(export NO_COLOR=1); ls", {}),
        ("export NO_COLOR=1 | ls", {}),
        ("NO_COLOR=1 true; ls", {}),
        ("env NO_COLOR=1 ls", {"NO_COLOR": "1"}),
        ("NO_COLOR=1 env -u NO_COLOR ls", {}),
        ("NO_COLOR=1 env -i ls", {}),
        ("NO_COLOR=1 bash -c ls", {"NO_COLOR": "1"}),
        ("NO_COLOR=1 timeout 5 ls", {"NO_COLOR": "1"}),
        ("NO_COLOR=1 sudo ls", {}),
        ("NO_COLOR=1 sudo -E ls", {"NO_COLOR": "1"}),
        ("sudo NO_COLOR=1 ls", {"NO_COLOR": "1"}),
        ("NO_COLOR=1 bash <<'E'\nls\nE", {"NO_COLOR": "1"}),
        ("f() { ls; }; NO_COLOR=1 f", {"NO_COLOR": "1"}),
        ("alias l=ls; NO_COLOR=1 l", {"NO_COLOR": "1"}),
        ("export A=1 NO_COLOR=$A; ls", {"A": "1", "NO_COLOR": "1"}),
    ],
)
def test_environment_of_the_last_command(text: str, env: dict[str, str]) -> None:
    assert dict(last(text).env) == env


def test_what_feeds_a_command_is_kept() -> None:
    assert last("git commit -F - <<'EOF'\nFix\n\nCo-authored-by: x\nEOF").stdin == "Fix\n\nCo-authored-by: x\n"
    assert last("cat <<< word").stdin == "word"
    assert "Co-authored-by: x" in last("git commit -m \"$(cat <<'EOF'\nFix\n\nCo-authored-by: x\nEOF\n)\"").argv[-1]


@pytest.mark.parametrize(
    "text",
    [
        "x=lol; " + "x=$x$x; " * 40 + "npm install $x",
        "x=lol; " + 'x="$x$x"; ' * 40 + 'npm install "$x"',
        "x=lol; " + "x=$x$x; " * 13 + "npm install " + "$x " * 5_000,
        "echo lololol > f; " + "cat f f > g; cat g g > f; " * 40 + "npm install f",
        "f() { f; f; f; f; f; f; f; f; f; f; f; f; }; npm install; f",
        "alias a='b;b;b;b;b;b;b;b' b='c;c;c;c;c;c;c;c'; alias c='a;a;a;a;a;a;a;a'; npm install; a",
    ],
    ids=["word", "string", "words", "files", "functions", "aliases"],
)
def test_text_that_multiplies_itself_is_bounded(text: str) -> None:
    found = parse_commands(text)
    assert any(one.argv[:2] == ("npm", "install") for one in found)
    assert max(sum(map(len, one.argv)) + len(one.stdin) for one in found) <= 2 * MAX_EXPANDED
    assert len(found) <= 2 * MAX_COMMANDS


def test_bash_in_bash_and_functions_without_end_stop() -> None:
    assert len(parse_commands("f() { f; g; }; g() { f; }; f")) < 5000
    nested = "git push"
    for _ in range(10):
        nested = "bash -c " + repr(nested)
    assert parse_commands(nested)


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet=st.sampled_from("git push;|&()<>$`'\"\\\n{}[]!#=EOF \t-\0é"), max_size=60))
def test_no_text_makes_the_reader_fail(text: str) -> None:
    for command in parse_commands(text):
        assert command.argv and all(isinstance(word, str) for word in command.argv)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.text(alphabet=st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), min_size=1, max_size=12),
        min_size=1,
        max_size=5,
    )
)
def test_quoted_words_come_back(words: list[str]) -> None:
    import shlex

    assert parse_commands(f"prog {shlex.join(words)}")[0].argv == ("prog", *words)
