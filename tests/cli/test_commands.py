"""The command line, against a real service over a real socket."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_reranker.cli.app import cli
from tests.service import Run, children, serving

LIKES = "\n".join(
    json.dumps(
        {"eventId": f"e{n}", "type": "LIKE", "item": {"id": str(n), "title": f"Film {n}", "tags": ["Crime"]}}
    )
    for n in range(3)
)
REQUEST = json.dumps(
    {
        "candidates": [
            {"id": "a", "title": "Love Story", "tags": ["Romance"]},
            {"id": "b", "title": "Heat", "tags": ["Crime"]},
        ]
    }
)


def test_events_go_in_and_a_better_order_comes_out(run: Run, service: subprocess.Popen[str]) -> None:
    assert run("rank", "-", stdin=REQUEST).stdout.split("\n")[0].endswith("Love Story")
    recorded = run("record", "-", "--json", stdin=LIKES)
    assert json.loads(recorded.stdout) == {"recorded": 3}
    answer = json.loads(run("rank", "--json", "-", stdin=REQUEST).stdout)
    assert [result["id"] for result in answer["results"]] == ["b", "a"]
    assert answer["final"] is True
    assert answer["degradedReason"] == "DEGRADED_REASON_NO_MODEL"


def test_a_policy_says_what_is_shown_and_what_is_not(run: Run, service: subprocess.Popen[str]) -> None:
    policy = {
        "blockedTags": ["romance"],
        "diversity": 0.5,
        "diversityMethod": "DPP",
        "calibration": 0.5,
        "exploration": 0.1,
        "caps": [{"tag": "Crime", "most": 1, "window": 5}],
    }
    request = json.dumps(json.loads(REQUEST) | {"policy": policy})
    answer = json.loads(run("rank", "--json", "-", stdin=request).stdout)
    assert ([each["id"] for each in answer["results"]], answer["blockedIds"]) == (["b"], ["a"])
    first, second = run("rank", "-", stdin=request).stdout.splitlines()
    assert first.endswith("Heat")
    assert second == "not shown: Love Story"


@pytest.mark.parametrize("effort", ["FULL", "SETTLED", "EFFORT_FULL"])
def test_effort_is_named_as_the_documentation_has_it(
    run: Run, service: subprocess.Popen[str], effort: str
) -> None:
    request = json.dumps(json.loads(REQUEST) | {"effort": effort})
    assert run("rank", "--json", "-", stdin=request).returncode == 0


def test_recording_again_changes_nothing(run: Run, service: subprocess.Popen[str]) -> None:
    run("record", "-", stdin=LIKES)
    assert run("record", "-", stdin=LIKES).stdout == "0 recorded, 3 known already\n"
    assert len(run("events", "--json").stdout.splitlines()) == 3
    assert "Film 2" in run("events", "--limit", "1").stdout


def test_what_was_forgotten_is_gone(run: Run, service: subprocess.Popen[str]) -> None:
    run("record", "-", stdin=LIKES)
    assert json.loads(run("forget", "--event-id", "e0", "--json").stdout)["events"] == 1
    assert json.loads(run("forget", "--item-id", "1", "--json").stdout)["events"] == 1
    told = json.loads(run("forget", "--all", "--dry-run", "--json").stdout)
    assert told["events"] == 1
    assert json.loads(run("forget", "--type", "like", "--dry-run", "--json").stdout)["events"] == 1
    assert json.loads(run("forget", "--tag", "DRAMA", "--dry-run", "--json").stdout)["remainingDigest"]
    spans = (("--from", "1990-01-01"), ("--from", "1990-01-01", "--to", "2190-01-01"))
    assert all(json.loads(run("forget", *s, "--dry-run", "--json").stdout)["events"] == 1 for s in spans)
    assert run("forget", "--to", "1990-01-01", "--dry-run").stdout.startswith(
        "would be forgotten: 0 events, "
    )
    refused = run("forget", "--all", stdin="n\n")
    assert refused.returncode == 130
    assert json.loads(run("forget", "--all", "--yes", "--json").stdout)["events"] == 1
    assert run("events").stdout == ""


BAD = [
    (("record", "-"), "not json", "line 1: not JSON"),
    (("record", "-"), LIKES + "\n\n{]", "line 5: not JSON"),
    (
        ("record", "-"),
        '{"type": "DWELL", "item": {"id": "1"}, "dwellS": ' + "9" * 400 + "}",
        "line 1: not an Event",
    ),
    (("record", "-"), "[1]", "must be a JSON object"),
    (("record", "-"), '{"type": "ADORE"}', "line 1: not an Event"),
    (("record", "-"), '\n{"type": "LIKE"}', "line 2: item"),
    (("rank", "-"), "{}", "candidates"),
    (("rank", "-"), '{"candidates": [{"id": "a"}, {"id": "a"}]}', "candidates[1].id"),
    (("rank", "-"), "[" * 100_000, "not JSON"),
    (("rank", "no-such-file"), "", "no-such-file"),
    (("forget",), "", "exactly one of"),
    (("forget", "--from", "2026-01-01", "--tag", "x"), "", "exactly one of"),
    (("forget", "--from", "soon"), "", "'soon' is no moment; write 2026-01-31 or"),
    (
        ("forget", "--from", "2026-02-01", "--to", "2026-01-01"),
        "",
        "time_range.to: 2026-01-01T00:00:00Z is not",
    ),
    (("forget", "--type", "LOVE"), "", "'LOVE' is not one of"),
    (
        ("forget", "--all-namespaces", "--namespace", "x", "--yes"),
        "",
        "namespace: all_namespaces means every",
    ),
]


def test_bad_input_is_named_in_one_line_and_nothing_of_it_is_kept(
    run: Run, service: subprocess.Popen[str]
) -> None:
    for arguments, stdin, message in BAD:
        found = run(*arguments, stdin=stdin)
        assert found.returncode == 2, (arguments, found.stderr)
        assert message in found.stderr
        assert "Traceback" not in found.stderr
    assert run("events").stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "nobody"), "neither in the catalogue"),
        (("--threads", "many"), "many"),
        (("--config", "none.toml"), "none.toml"),
    ],
)
def test_a_service_with_bad_settings_does_not_start(
    run: Run, arguments: tuple[str, ...], message: str
) -> None:
    found = run("serve", *arguments)
    assert found.returncode == 2
    assert message in found.stderr
    assert "Traceback" not in found.stderr


def test_without_a_service_the_error_says_how_to_start_one(run: Run) -> None:
    found = run("rank", "-", stdin=REQUEST)
    assert found.returncode == 3
    assert "edge-reranker serve" in found.stderr


def test_a_wrong_token_is_refused(run: Run, data_dir: Path, service: subprocess.Popen[str]) -> None:
    (data_dir / "tokens" / "app.token").write_text("wrong")
    assert run("rank", "-", stdin=REQUEST).returncode == 5


def test_a_second_service_on_the_same_data_is_refused_and_the_first_goes_on(
    run: Run, data_dir: Path, service: subprocess.Popen[str]
) -> None:
    second = run("serve", "--model", "none", "--socket", str(data_dir / "other.sock"))
    assert second.returncode == 4
    assert "another edge-reranker serves" in second.stderr
    assert run("record", "-", stdin=LIKES).returncode == 0


@pytest.mark.model
def test_a_killed_worker_never_stops_an_answer(data_dir: Path, cache_dir: Path, run: Run) -> None:
    with serving(data_dir, cache_dir) as process:
        run("record", "-", stdin=LIKES)
        for worker in children(process.pid):
            os.kill(worker, signal.SIGKILL)
        answer = json.loads(run("rank", "--json", "-", stdin=REQUEST).stdout)
        assert sorted(result["id"] for result in answer["results"]) == ["a", "b"]
        assert process.poll() is None


@pytest.mark.model
@pytest.mark.parametrize("damage", ["cut in half", "missing"])
def test_a_damaged_model_means_lower_tiers_and_a_reason(
    data_dir: Path, cache_dir: Path, tmp_path: Path, run: Run, damage: str
) -> None:
    folder = tmp_path / "models" / "minilm"
    folder.mkdir(parents=True)
    for file in (cache_dir / "models" / "minilm").iterdir():
        if file.is_file() and damage != "missing":
            (folder / file.name).write_bytes(file.read_bytes()[: file.stat().st_size // 2 or None])
            if file.suffix == ".json":
                (folder / file.name).write_bytes(file.read_bytes())
    with serving(data_dir, tmp_path) as process:
        run("record", "-", stdin=LIKES)
        answer = json.loads(run("rank", "--json", "-", stdin=REQUEST).stdout)
        assert answer["degradedReason"] == "DEGRADED_REASON_MODEL_UNAVAILABLE"
        assert [result["id"] for result in answer["results"]] == ["b", "a"]
        process.send_signal(signal.SIGTERM)
        assert "model pull" in process.communicate(timeout=20)[1] or damage != "missing"
    verified = run("model", "verify", "--cache-dir", str(tmp_path))
    assert verified.returncode == (4 if damage == "cut in half" else 0)


def test_a_corrupt_pack_means_the_servers_order_and_a_reason(
    data_dir: Path, cache_dir: Path, tmp_path: Path, run: Run
) -> None:
    with serving(data_dir, cache_dir, "--model", "none", "--pack", str(tmp_path)):
        run("record", "-", stdin=LIKES)
        answer = json.loads(run("rank", "--json", "-", stdin=REQUEST).stdout)
        looked = run("doctor", "--model", "none")
    assert answer["degradedReason"] == "DEGRADED_REASON_PACK_INVALID"
    assert "!!  service      its pack cannot be used" in looked.stdout
    assert [result["id"] for result in answer["results"]] == ["a", "b"]


@pytest.mark.parametrize("content", [b"", b"this is no database, but it is long enough" * 100])
def test_an_odd_file_in_place_of_the_database_is_refused_and_left_alone(
    data_dir: Path, run: Run, content: bytes
) -> None:
    (data_dir / "store.db").write_bytes(content)
    found = run("serve", "--model", "none")
    assert found.returncode == 6
    assert "store.db" in found.stderr
    assert (data_dir / "store.db").read_bytes() == content


def test_doctor_says_what_to_do_next(run: Run, data_dir: Path, cache_dir: Path, tmp_path: Path) -> None:
    found = run("doctor", "--cache-dir", str(tmp_path))
    assert found.returncode == 4
    assert found.stdout.splitlines()[-1] == "Next: run `edge-reranker model pull minilm`"
    with serving(data_dir, cache_dir, "--model", "none"):
        found = run("doctor", "--model", "none")
        report = json.loads(run("doctor", "--model", "none", "--json").stdout)
    assert found.returncode == 0, found.stdout
    assert found.stdout.splitlines()[-1] == "Next: nothing; all is well"
    assert all(finding["ok"] for finding in report)
    assert "; pack movielens-minilm-" in report[-1]["detail"]


def commands() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [()]
    for name, command in cli.commands.items():
        found.append((name,))
        found += [(name, sub) for sub in getattr(command, "commands", {})]
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_help_with_an_example(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, [*command, "--help"])
    assert result.exit_code == 0
    assert "Example:" in result.output
    assert "edge-reranker" in result.output


def test_exit_codes_are_documented() -> None:
    text = CliRunner().invoke(cli, ["--help"]).output
    found = {int(code) for code in re.findall(r"^ +(\d+) {2,}\S", text, re.MULTILINE)}
    assert found == {0, 1, 2, 3, 4, 5, 6, 130, 141}


@pytest.mark.model
def test_the_demo_shows_a_real_user_from_an_empty_folder(run: Run) -> None:
    found = run("demo")
    assert found.returncode == 0, found.stderr
    for part in ("Last ten films", "Ours, on this device", "place by the server -> ours", "\nWhy ", "Next: "):
        assert part in found.stdout
    assert "again (films encoded meanwhile)" in found.stdout
    assert "100% of the candidates by the model" in found.stdout


def test_a_bad_line_far_down_is_named_and_what_was_stored_before_it_is_said(
    run: Run, service: subprocess.Popen[str]
) -> None:
    lines = [json.dumps({"eventId": f"e{n}", "type": "LIKE", "item": {"id": str(n)}}) for n in range(600)]
    lines[550] = '{"type": "LIKE", "item": {"id": ""}}'
    found = run("record", "-", stdin="\n".join(lines))
    assert found.returncode == 2
    assert "line 551: item.id" in found.stderr
    assert "500 recorded before it" in found.stderr


def test_what_others_wrote_cannot_steer_the_terminal(run: Run, service: subprocess.Popen[str]) -> None:
    title = "a\r\n\x1b]0;owned\x07\u202eb"
    run(
        "record",
        "-",
        stdin=json.dumps({"eventId": "x\x1b[31m", "type": "LIKE", "item": {"id": "1", "title": title}}),
    )
    listed = run("events").stdout
    ranked = run("rank", "-", stdin=json.dumps({"candidates": [{"id": "y\x1b[2J"}]})).stdout
    assert len(listed.splitlines()) == len(ranked.splitlines()) == 1
    assert all(line.isprintable() for line in (*listed.splitlines(), *ranked.splitlines()))
