"""Odd input and odd surroundings: one line that names what is odd, or a quiet end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service import Run, surroundings

# Empty is unset: output is buffered, as it is for users.
BUFFERED = {"PYTHONUNBUFFERED": ""}
LIKE = json.dumps({"type": "LIKE", "item": {"id": "1", "title": "Heat (1995)"}})
REQUEST = json.dumps({"candidates": [{"id": "a"}]})


def to_nobody(
    data_dir: Path, cache_dir: Path, *arguments: str, stdin: str = "", errors_too: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs a command whose output goes into a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [sys.executable, "-m", "edge_reranker.cli", *arguments],
            input=stdin,
            stdout=writer,
            stderr=writer if errors_too else subprocess.PIPE,
            text=True,
            timeout=60,
            env=surroundings(data_dir, cache_dir) | BUFFERED,
        )
    finally:
        os.close(writer)


def test_output_that_nobody_reads_ends_a_command_quietly(
    run: Run, service: subprocess.Popen[str], data_dir: Path, cache_dir: Path
) -> None:
    run("record", "-", stdin=LIKE)
    for arguments, stdin in (
        (("--help",), ""),
        (("rank", "--help"), ""),
        (("events",), ""),
        (("rank", "-"), REQUEST),
        (("record", "-"), LIKE),
        (("model", "list"), ""),
        (("doctor",), ""),
    ):
        found = to_nobody(data_dir, cache_dir, *arguments, stdin=stdin)
        assert (found.returncode, found.stderr) == (141, ""), arguments
    for arguments in (("nonsense",), ("rank", "-")):
        assert to_nobody(data_dir, cache_dir, *arguments, errors_too=True).returncode == 141


def test_a_reader_that_has_seen_enough_stops_the_list(
    run: Run, service: subprocess.Popen[str], data_dir: Path, cache_dir: Path
) -> None:
    long = json.dumps({"type": "LIKE", "item": {"id": "1", "title": "x" * 500}})
    run("record", "-", stdin="\n".join([long] * 400))
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_reranker.cli", "events", "--limit", "400"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=surroundings(data_dir, cache_dir) | BUFFERED,
    )
    assert process.stdout is not None
    assert "LIKE" in process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(timeout=20) == 141
    process.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk in a file is Linux's")
def test_output_that_does_not_fit_on_the_disk_is_an_error_of_one_line(
    data_dir: Path, cache_dir: Path
) -> None:
    with open("/dev/full", "w") as full:
        found = subprocess.run(
            [sys.executable, "-m", "edge_reranker.cli", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            env=surroundings(data_dir, cache_dir) | BUFFERED,
        )
    assert found.returncode == 4
    assert found.stderr == "Error: input or output: No space left on device\n"


def test_what_stdout_cannot_show_is_named(run: Run, run_process: Run, service: subprocess.Popen[str]) -> None:
    run("record", "-", stdin=LIKE.replace("Heat", "\\u96ea"))
    found = run_process("events", PYTHONIOENCODING="latin-1")
    assert (found.returncode, found.stderr) == (2, "Error: '\\u96ea' cannot be written as latin-1\n")


def test_an_id_that_is_not_unicode_is_named(run: Run) -> None:
    found = run("forget", "--event-id", os.fsdecode(b"a\xff"))
    assert found.returncode == 2
    assert found.stderr == "Error: event_id: 'a\\udcff' is not valid Unicode text\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"\\ud800": 1}', "line 1: not an Event: a name in it is not valid Unicode text"),
        ('{"type": "LIKE", "kind": 1}', 'line 1: not an Event: Message type "edge_reranker.v1.Event" has no'),
        ('{"type": "LIKE", "item": {"id": "\\ud800"}}', "line 1: not an Event: "),
    ],
)
def test_odd_json_is_named_on_one_line(
    run: Run, service: subprocess.Popen[str], line: str, message: str
) -> None:
    found = run("record", "-", stdin=line)
    assert found.returncode == 2
    assert message in found.stderr
    assert found.stderr.count("\n") == 1


def test_the_kind_of_a_bad_request_has_its_article(run: Run, service: subprocess.Popen[str]) -> None:
    assert "not a RerankRequest: " in run("rank", "-", stdin='{"topN": -1}').stderr


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("events", "--data-dir"),
        ("events", "--socket"),
        ("serve", "--pack"),
        ("encode", "--pack"),
        ("evaluate", "--pack"),
        ("evaluate", "--html"),
        ("train", "--out"),
        ("train", "--data"),
    ],
)
def test_an_empty_path_is_not_the_current_directory(run: Run, command: str, option: str) -> None:
    found = run(command, option, "")
    assert found.returncode == 2
    assert f"'{option}': an empty path" in found.stderr


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--threads", "513", "n_threads: 513 (from flags) is not a whole number from 0 to 512"),
        ("--threads", "-1", "n_threads: -1 (from flags) is not a whole number"),
        ("--budget-ms", "nan", "default_budget_ms: nan (from flags) is not a number from 0 to 60,000"),
        ("--data-dir", "~nobody-is-called-so", "data_dir: '~nobody-is-called-so' (from flags) is not a path"),
    ],
)
def test_a_senseless_setting_is_named(run: Run, option: str, value: str, message: str) -> None:
    found = run("serve", "--model", "none", option, value)
    assert found.returncode == 2
    assert message in found.stderr
    assert found.stderr.count("\n") == 1


def test_lines_without_an_id_are_new_events_each_time(run: Run, service: subprocess.Popen[str]) -> None:
    for _ in range(2):
        assert run("record", "-", stdin=f"{LIKE}\n{LIKE}").stdout == "2 recorded, 0 known already\n"
    assert "records such lines again" in " ".join(run("record", "--help").stdout.split())


def test_long_lines_are_sent_in_messages_that_are_not_too_large(
    run: Run, service: subprocess.Popen[str]
) -> None:
    line = json.dumps({"type": "LIKE", "item": {"id": "1", "text": "x" * 15_000_000}})
    found = run("record", "-", stdin=f"{line}\n" * 5)
    assert (found.stdout, found.stderr) == ("5 recorded, 0 known already\n", "")


def test_a_line_that_no_message_can_carry_is_refused(run: Run, service: subprocess.Popen[str]) -> None:
    line = json.dumps({"type": "LIKE", "item": {"id": "1", "text": "x" * 2**26}})
    found = run("record", "-", stdin=line)
    assert found.returncode == 2
    assert "67,108,864 can be sent; give fewer at a time, or shorter texts" in found.stderr


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [("rank", 2, "not JSON"), ("record", 0, "0 recorded, 0 known already"), ("encode", 0, "")],
)
def test_a_closed_standard_input_is_an_empty_one(
    service: subprocess.Popen[str], data_dir: Path, cache_dir: Path, command: str, code: int, told: str
) -> None:
    found = subprocess.run(
        ["sh", "-c", f'exec "{sys.executable}" -m edge_reranker.cli {command} - <&-'],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        env=surroundings(data_dir, cache_dir),
    )
    assert found.returncode == code
    assert told in found.stdout
    assert found.stdout.count("\n") <= 1


def test_a_byte_order_mark_is_no_part_of_the_json(
    run: Run, service: subprocess.Popen[str], tmp_path: Path
) -> None:
    file = tmp_path / "request.json"
    file.write_text(REQUEST, encoding="utf-8-sig")
    assert run("rank", str(file)).returncode == 0
    assert run("record", "-", stdin=f"\ufeff{LIKE}\n").stdout == "1 recorded, 0 known already\n"
