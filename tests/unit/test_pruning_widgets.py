"""The widgets of the pruning lesson with no browser: what they draw, say and table, and how fast."""

from __future__ import annotations

import ast
import dataclasses
import html
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace
from typing import Any

import pytest

from labkit.errors import ConfigError, DataError
from labkit.progress import silent
from labkit.widgets import (
    Options,
    SensitivityExplorer,
    TicketExplorer,
    coupling_table,
    curves_of,
    draw_coupling,
    draw_sensitivity,
    draw_tickets,
    draw_widths,
    rounds_of,
    sensitivity_says,
    sensitivity_table,
    svg,
    tickets_say,
    tickets_table,
    widths_table,
)
from tests.pruning_widgets import (
    LAYERS,
    SPARSITIES,
    channel_game,
    runs,
    scanned,
    scans,
    small_widths,
)
from tests.quantization_widgets import HOSTILE, SVG, WAIT_S, words
from tests.unit.test_quantization_widgets import ANSWERS_WITHIN_S, all_html, cpu_s


def line_of(widget: Any) -> str:
    """The line of code that a widget shows, as text."""
    shown = getattr(widget, "code", None) or widget.command
    return html.unescape(shown.value.partition("<pre")[2].partition(">")[2].partition("</pre>")[0])


# --- which layers mind ---


def test_each_layer_has_a_chart_with_what_it_loses_at_the_marked_sparsity() -> None:
    layers = curves_of(scans())
    shown = words(draw_sensitivity(layers, 0.99, "magnitude"))
    for each in layers:
        assert svg.shorten(each.layer, 22) in shown
        assert f"{-each.lost_pp('magnitude', 0.99):+.1f} points" in shown
    assert shown.count("500 weights") == 1
    assert draw_sensitivity(layers, 0.9, "magnitude") != draw_sensitivity(layers, 0.9, "random")


def test_every_criterion_has_a_curve_in_every_chart_and_they_differ_in_dashes_too() -> None:
    drawing = draw_sensitivity(curves_of(scans()), 0.9, "magnitude")
    curves = [each for each in drawing.splitlines() if each.startswith("<path") and 'fill="none"' in each]
    assert len(curves) == 2 * len(LAYERS)
    assert sum("stroke-dasharray" in each for each in curves) == len(LAYERS)


def test_the_table_says_what_the_drawing_shows() -> None:
    layers = curves_of(scans())
    table = sensitivity_table(layers, 0.99)
    assert table.count("<tr>") == 1 + len(LAYERS)
    for each in layers:
        for criterion in ("magnitude", "random"):
            assert f"{each.lost_pp(criterion, 0.99):.4g}" in table


def test_the_sentence_names_who_minds_most_and_how_much_has_room() -> None:
    says = sensitivity_says(curves_of(scans()), 0.5, "magnitude")
    assert (
        "conv1 minds most, 0.2 points" in says and "3 of 3 layers" in says and "100% of all weights" in says
    )
    says = sensitivity_says(curves_of(scans()), 0.99, "magnitude")
    assert "conv1 minds most, 46.1 points" in says and "0 of 3 layers" in says


def test_the_slider_stops_where_something_was_scanned_and_says_it_anew() -> None:
    made = SensitivityExplorer(scans(), sparsity=0.9)
    slider = made.form.controls["sparsity"]
    assert [value for _, value in slider.options] == list(SPARSITIES)
    assert [label for label, _ in slider.options] == ["50%", "90%", "99%"]
    before = made.picture.value
    slider.index = 2
    assert "With 99%" in made.says.value and made.picture.value != before
    made.form.controls["criterion"].value = "random"
    assert "at random" in made.says.value


def test_the_line_under_each_explorer_draws_the_same() -> None:
    made = SensitivityExplorer(scans(), sparsity=0.99, criterion="random")
    known = {"draw_sensitivity": draw_sensitivity, "curves_of": curves_of, "scans": scans()}
    assert words(eval(line_of(made), known)) == words(made.picture.value)
    drawn = TicketExplorer(runs(), round=2)
    known = {"draw_tickets": draw_tickets, "rounds_of": rounds_of, "tickets": runs()}
    assert words(eval(line_of(drawn), known)) == words(drawn.picture.value)


def test_scans_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(DataError, match="nothing was scanned"):
        SensitivityExplorer({"magnitude": []})
    with pytest.raises(DataError, match="'size' is no criterion that layers are scanned by"):
        SensitivityExplorer({"size": scans()["magnitude"]})
    with pytest.raises(DataError, match="not of the same layers"):
        SensitivityExplorer({"magnitude": scans()["magnitude"], "random": scans()["random"][:-1]})
    with pytest.raises(ConfigError, match=r"sparsity=0\.6 was not scanned: 0\.5, 0\.9, 0\.99 were"):
        draw_sensitivity(curves_of(scans()), 0.6, "magnitude")
    with pytest.raises(ConfigError, match="criterion='taylor' was not scanned: magnitude, random were"):
        sensitivity_says(curves_of(scans()), 0.9, "taylor")


# --- tickets ---


def test_a_round_is_the_median_of_its_seeds() -> None:
    says = tickets_say(rounds_of(runs()), 3)
    assert "51.2% of the weights: 96.5 %" in says and "90.5 %" in says and "Medians of 3 seeds" in says
    assert "65.0 %" in says  # the control after its first epoch
    assert "the whole network" in tickets_say(rounds_of(runs()), 0)


def test_the_ticket_table_has_a_row_for_each_round_and_the_drawing_both_lines() -> None:
    rounds = rounds_of(runs())
    table = tickets_table(rounds)
    assert (
        table.count("<tr>") == 1 + len(rounds) and "51.2%" in table and "–" in table
    )  # round 0 has no control
    shown = words(draw_tickets(rounds, 3))
    assert {"100%", "accuracy of round 3, %", "epoch"} <= set(shown)
    assert draw_tickets(rounds, 3) != draw_tickets(rounds, 2)


def test_runs_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(DataError, match="no run of round 0"):
        TicketExplorer([run for run in runs() if run.round])
    with pytest.raises(ConfigError, match="round=9 was not drawn: rounds 0 to 3 were"):
        draw_tickets(rounds_of(runs()), 9)


# --- couplings ---


def test_a_residual_stream_is_one_column_with_all_that_make_and_read_it() -> None:
    widths = small_widths()
    drawing, table = draw_coupling(widths), coupling_table(widths)
    groups = widths.structure.coupling.groups
    made = sum(len(group.of_role("makes")) for group in groups)
    read = sum(len(group.of_role("reads")) for group in groups)
    assert drawing.count('width="12.0" height="12.0"') == made + 1  # and one in the legend
    assert drawing.count("<circle") == read + 1
    assert (
        table.count("<tr>") == 1 + len(groups) and table.count("residual stream") == len(widths.residual) == 3
    )
    told = ElementTree.fromstring(drawing).findtext(f"{SVG}desc") or ""
    assert "made by stem.weight, blocks.0.conv2.weight; read by" in told


# --- the game of widths ---


def test_multiply_adds_are_counted_at_once_and_nothing_is_measured() -> None:
    made = channel_game(lambda *_: pytest.fail("nothing may be measured without a click"))
    assert "Not yet" in made.says.value and "100.0%" in made.says.value
    made.form.buttons[0.5].click()
    assert "Reached" in made.says.value and made.job.state == "idle"
    share = small_widths().macs(made.form.build()) / small_widths().macs({})
    assert f"{share:.1%}" in made.says.value and share < 0.3


def test_each_group_is_told_with_what_it_saves_and_costs_alone() -> None:
    widths = small_widths()
    options = Options(widths, scanned(widths), keep=0.5)
    total = options.total({"stem.weight": 0.5})
    drawing, table = draw_widths(total), widths_table(total)
    saved = 1 - widths.macs({"stem.weight": 0.5}) / widths.macs({})
    assert {"8 of 16", "16 of 16", f"{saved:.1%}", "25.0 points", "✗ more than the goal"} <= set(
        words(drawing)
    )
    assert f"{saved:.1%}" in table and "8/16" in table and table.count("residual stream") == 3
    assert "✓ the goal is reached" in words(draw_widths(options.total(dict.fromkeys(widths.groups, 0.5))))


def test_measure_mine_shows_the_try_beside_the_recorded_ones() -> None:
    made = channel_game()
    assert made.run_button.description == "Measure mine" and made.view.table.value.count(">recorded<") == 2
    made.form.set_all(0.5)
    made.form.controls["stem.weight"].value = 1.0
    made.run_button.click()
    assert made.job.result(WAIT_S).assignment == made.form.build()
    table = made.view.table.value
    assert "try 1 (100%: 1, 50%: 5)" in table and ">yours<" in table and "time_share" in table
    assert "your last: try 1" in made.view.figure.value


def test_the_line_under_the_game_holds_the_widths() -> None:
    made = channel_game()
    made.form.set_all(0.5)
    made.form.controls["stem.weight"].value = 0.75
    ast.parse(line_of(made))
    known = {"measure": lambda given, progress: given, "widths": small_widths(), "silent": silent}
    assert eval(line_of(made), known) == made.form.build()


def test_a_group_that_was_not_scanned_at_every_width_is_refused() -> None:
    widths = small_widths()
    with pytest.raises(DataError, match="was not scanned with 25% of its channels"):
        Options(widths, scanned(widths)[:-1], keep=0.5)


# --- all of them ---


def everything() -> list[Any]:
    made = channel_game()
    made.form.set_all(0.5)
    return [SensitivityExplorer(scans()), TicketExplorer(runs()), made]


def test_names_with_html_in_them_stay_text(monkeypatch: pytest.MonkeyPatch) -> None:
    explorer = SensitivityExplorer(scans(), sparsity=0.9)
    assert "<img src=x" not in all_html(explorer) and html.escape(HOSTILE) in all_html(explorer)
    group = next(iter(small_widths().groups))
    total = Options(small_widths(), scanned(small_widths()), keep=0.5).total({})
    first = dataclasses.replace(total.options[0], group=HOSTILE)
    hostile = dataclasses.replace(total, options=(first, *total.options[1:]))
    assert group != HOSTILE and "<img src=x" not in draw_widths(hostile) + widths_table(hostile)
    monkeypatch.setattr(svg, "escape", lambda given: given)
    assert "<img src=x" in draw_widths(hostile)  # the check above would notice


def test_every_drawing_says_in_words_what_it_shows_and_every_control_has_a_name() -> None:
    for made in everything():
        drawing = ElementTree.fromstring(made.picture.value)
        assert drawing.get("role") == "img"
        assert drawing.findtext(f"{SVG}title") and len(drawing.findtext(f"{SVG}desc") or "") > 100
        assert 'role="status"' in made.says.value
        for name, control in made.form.controls.items():
            assert control.description == name and control.tooltip


def test_the_text_that_a_notebook_keeps_is_short() -> None:
    assert [repr(each) for each in everything()] == [
        "SensitivityExplorer(sparsity, criterion)",
        "TicketExplorer(round)",
        "ChannelGame(6 groups, 50% of the multiply-adds)",
    ]


def test_every_slider_answers_at_once(record_testsuite_property: Any) -> None:
    sensitivity, tickets, game = everything()

    def move(control: Any, *values: Any) -> None:
        for value in values:
            control.value = value

    first = game.form.controls["stem.weight"]
    times = {
        "sparsity_ms": cpu_s(lambda: move(sensitivity.form.controls["sparsity"], 0.5, 0.99)) / 2,
        "round_ms": cpu_s(lambda: move(tickets.form.controls["round"], 1, 3)) / 2,
        "width_ms": cpu_s(lambda: move(first, 0.25, 0.75)) / 2,
        "all_ms": cpu_s(lambda: (game.form.set_all(0.75), game.form.set_all(0.5))) / 2,
    }
    for name, seconds in times.items():
        print(f"{name}={1e3 * seconds:.1f}")
        record_testsuite_property(name, round(1e3 * seconds, 1))
    assert max(times.values()) <= ANSWERS_WITHIN_S, times


def test_a_measurement_that_fails_adds_no_try() -> None:
    def fail(assignment: Any, progress: Any) -> SimpleNamespace:
        raise ConfigError("no such width")

    made = channel_game(fail)
    made.run_button.click()
    with pytest.raises(ConfigError):
        made.job.result(WAIT_S)
    assert "Failed" in made.status.value and made.tries == []
