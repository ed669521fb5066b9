"""What a command says on stderr while it works: one living line on a terminal, two lines a minute in a log."""

from __future__ import annotations

import sys

import pytest

from labkit.cli import terminal


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when the test says so."""
    now = [1000.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def test_a_log_gets_a_line_each_half_minute_and_a_short_command_none(clock, capsys):
    report = terminal.progress_line()
    report(0.1, "epoch 1 of 10")
    clock(29)
    report(0.5, "epoch 5 of 10")
    assert capsys.readouterr().err == ""
    clock(2)
    report(0.6, "epoch 6 of 10")
    report(0.7, "epoch 7 of 10")
    clock(31)
    report(1.0, "epoch 10 of 10")
    assert capsys.readouterr().err == "  60%  epoch 6 of 10\n 100%  epoch 10 of 10\n"


def test_a_terminal_keeps_one_line_and_clears_it_at_the_end(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    report = terminal.progress_line()
    report(0.25, "x" * 200)
    report(0.26, "too soon")
    clock(0.2)
    report(0.5, "half")
    report(1.0, "done")
    lines = capsys.readouterr().err.split("\r\x1b[2K")
    assert lines == ["", "  25%  " + "x" * 90, "  50%  half", " 100%  done", ""]
