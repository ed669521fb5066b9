"""Predictions, checks, claims and decisions, as the reader of a lesson meets them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pytest

from labkit.errors import ConfigError
from labkit.teach import check, claim, decision, predict, previous_decision
from labkit.teach.catalogue import STRINGS


@pytest.fixture(autouse=True)
def live_notebook(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LABKIT_HEADLESS", raising=False)
    monkeypatch.setenv("LABKIT_COURSE_DIR", str(tmp_path / "course"))


@pytest.mark.parametrize(
    ("answer", "expected", "tolerance", "status"),
    [
        (None, 4.0, 0.1, "not yet"),
        (None, None, 0, "not yet"),
        (4.05, 4.0, 0.1, "right"),
        (3.95, 4, 0.1, "right"),
        (4.2, 4.0, 0.1, "not quite"),
        (4, 4, 0, "right"),
        (np.float32(4), 4, 0, "right"),
        (np.uint8(3), 5, 3, "right"),
        (math.nan, 4.0, 0.1, "not quite"),
        (math.inf, 4.0, 0.1, "not quite"),
        ("4", 4, 0, "not quite"),
        (True, 1, 0, "not quite"),
        (True, True, 0, "right"),
        (np.bool_(True), True, 0, "right"),
        (False, True, 0, "not quite"),
        ("int8", "int8", 0, "right"),
        ("Int8", "int8", 0, "not quite"),
        ([1.0, 2.0], [1.05, 1.95], 0.1, "right"),
        (np.zeros((2, 2)), np.zeros(4), 0, "not quite"),
        ([1, [2]], [1, 2], 0, "not quite"),
        (7, lambda answer: answer % 2 == 1, 0, "right"),
        (8, lambda answer: answer % 2 == 1, 0, "not quite"),
        ("x", lambda answer: answer % 2 == 1, 0, "not quite"),
    ],
)
def test_check_tells_how_an_answer_stands_and_raises_nothing(
    answer: Any, expected: Any, tolerance: float, status: str
) -> None:
    result = check(answer, expected, tolerance=tolerance, hint="Count the bytes.")
    assert result.status == status and result.passed == (status == "right")
    assert ("Count the bytes." in result.message) == (status == "not quite")
    assert repr(result) == result.message


def test_answer_that_explodes_is_not_quite_and_its_text_is_escaped() -> None:
    class Bomb:
        def __str__(self) -> str:
            return "<script>" + "x" * 500

        def __array__(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("<b>no")

    result = check(Bomb(), 4)
    assert result.status == "not quite" and len(result.message) < 200
    assert "<script>" not in result._repr_html_() and "<b>no" not in result._repr_html_()


def test_true_claim_is_printed_with_a_tick(capsys: pytest.CaptureFixture[str]) -> None:
    claim("int8 takes a quarter of the bytes", np.float64(3.9) > 3.5)
    assert capsys.readouterr().out == "✓ int8 takes a quarter of the bytes\n"


@pytest.mark.parametrize("truth", [False, np.bool_(False)])
def test_false_claim_stops_the_lesson_with_its_sentence(truth: Any) -> None:
    with pytest.raises(AssertionError, match="not true here: pruning is free"):
        claim("pruning is free", truth)


@pytest.mark.parametrize("truth", [(False, 3), 1, "no", None, np.array([True])])
def test_claim_of_what_is_no_comparison_is_refused(truth: Any) -> None:
    with pytest.raises(ConfigError, match="pass a comparison"):
        claim("x", truth)


@pytest.mark.parametrize(
    ("predicted", "measured", "factor", "words"),
    [
        (2.0, 4.0, 2.0, "You predicted 2 ×. Measured: 4 ×, off by a factor of 2. Because."),
        (8.0, 4.0, 2.0, "You predicted 8 ×. Measured: 4 ×, off by a factor of 2. Because."),
        (4.1, 4.0, 1.025, "You predicted 4.1 ×, and so it is: 4 ×. Because."),
        (-1.0, 4.0, None, "You predicted -1 ×. Measured: 4 ×, off by 5. Because."),
        (0.0, 0.0, None, "You predicted 0 ×, and so it is: 0 ×. Because."),
        (None, 4.0, None, "Not answered. Measured: 4 ×. Because."),
    ],
)
def test_reveal_shows_how_far_off_a_number_was(
    predicted: float | None, measured: float, factor: float | None, words: str
) -> None:
    guess = predict("How many times smaller?", unit="×")
    if predicted is not None:
        guess.lock(predicted)
    revealed = guess.reveal(measured, why="Because.")
    assert revealed.factor == pytest.approx(factor) and revealed.message == words
    assert (revealed.predicted, revealed.measured) == (predicted, measured)


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        ("int8", "You predicted int8, and so it is: int8."),
        ("float32", "You predicted int8. Measured: float32."),
        ("<b>x", "You predicted int8. Measured: <b>x."),
    ],
)
def test_reveal_of_a_choice_says_whether_it_was_so(measured: str, words: str) -> None:
    guess = predict("Which is faster?", ["int8", "float32"])
    guess.lock("int8")
    revealed = guess.reveal(measured)
    assert repr(revealed) == words and "<b>x" not in revealed._repr_html_()


def test_prediction_is_made_once_and_not_after_the_reveal() -> None:
    guess = predict("?")
    guess.lock(3)
    with pytest.raises(ConfigError, match="predict once, and before the measurement"):
        guess.lock(4)
    assert guess.answer == 3
    late = predict("?")
    late.reveal(4.0)
    with pytest.raises(ConfigError, match="closed"):
        late.lock(4)
    assert late.answer is None


@pytest.mark.parametrize("answer", ["x", None, math.nan, math.inf, "", []])
def test_number_must_be_one(answer: Any) -> None:
    guess = predict("?", unit="ms")
    with pytest.raises(ConfigError, match="must be a number, such as 2.5 ms"):
        guess.lock(answer)
    assert guess.is_open


def test_choice_must_be_one_of_them() -> None:
    with pytest.raises(ConfigError, match="did you mean 'float32'"):
        predict("?", ["int8", "float32"]).lock("float3")


def form_of(guess: Any) -> tuple[Any, Any, Any]:
    status, field, button = guess.form().children
    return status, field, button


def test_form_locks_a_number_in_and_closes() -> None:
    guess = predict("How many <b>times?", unit="×")
    status, field, button = form_of(guess)
    assert "&lt;b&gt;" in status.value and field.description == "Answer ×" and not button.disabled
    field.value = "a few"
    button.click()
    assert "must be a number" in status.value and guess.answer is None and not button.disabled
    field.value = "3.5"
    button.click()
    assert guess.answer == 3.5 and button.disabled and field.disabled
    assert "locked in: 3.5 ×" in status.value


def test_form_offers_the_choices_and_suggests_none() -> None:
    guess = predict("Which?", ["int8", "float32"])
    _, field, button = form_of(guess)
    assert isinstance(field, ipywidgets.RadioButtons) and field.value is None
    button.click()
    assert guess.answer is None
    field.value = "int8"
    button.click()
    assert guess.answer == "int8"


def test_form_left_open_says_so_when_its_button_comes_too_late() -> None:
    guess = predict("Which?", ["int8", "float32"])
    status, field, button = form_of(guess)
    field.value = "int8"
    guess.reveal("int8")
    button.click()
    assert guess.answer is None and button.disabled and "closed" in status.value
    assert form_of(guess)[2].disabled


def test_live_notebook_gets_the_form_and_a_text_for_other_readers() -> None:
    shown = predict("Which <one>?", ["a", "b"])._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert shown["text/plain"] == "Which <one>? (not answered)"
    assert shown["text/html"] == "<p>Which &lt;one&gt;? (not answered)</p>"


def test_headless_prediction_is_text_and_never_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    guess = predict("Which?", ["a", "b"])
    assert set(guess._repr_mimebundle_()) == {"text/plain", "text/html"}
    assert "not answered" in repr(guess)
    assert guess.reveal("a").message == "Not answered. Measured: a."


def test_decision_is_there_for_the_next_lesson(tmp_path: Path) -> None:
    assert previous_decision("03_quantization") is None
    decision("03_quantization", variant="int4", constraint="memory", risk="none seen", size_bytes=1)
    made = decision(
        "03_quantization",
        variant="int8",
        constraint="memory",
        risk="rare classes",
        size_bytes=71_000,
        drop_pp=np.float64(0.2),
    )
    assert previous_decision("03_quantization") == made
    assert made.figures["size_bytes"] == 71_000
    document = json.loads((tmp_path / "course" / "03_quantization.json").read_text())
    assert document["variant"] == "int8" and document["figures"]["drop_pp"] == 0.2
    assert repr(made) == (
        "03_quantization: ship int8; binding: memory; risk: rare classes; size_bytes 71000; drop_pp 0.2"
    )
    assert "<li><strong>To ship</strong>: int8</li>" in made._repr_html_()
    assert "<b>" not in decision("04", variant="<b>", constraint="<b>", risk="<b>")._repr_html_()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lesson": "../x"}, "lesson='../x'"),
        ({"lesson": ""}, "lesson=''"),
        ({"variant": " "}, "variant='' is empty"),
        ({"risk": ""}, "risk='' is empty"),
        ({"drop_pp": math.nan}, "cannot be recorded"),
        ({"drop_pp": object()}, "cannot be recorded"),
    ],
)
def test_decision_that_says_nothing_is_refused_and_the_old_one_stays(
    changes: dict[str, Any], message: str
) -> None:
    words: dict[str, Any] = {
        "lesson": "01",
        "variant": "int8",
        "constraint": "memory",
        "risk": "rare classes",
    }
    before = decision(**words)
    with pytest.raises(ConfigError, match=message):
        decision(**{**words, **changes})
    assert previous_decision("01") == before


@pytest.mark.parametrize("content", ["{", '{"lesson": "01"}', "[]"])
def test_damaged_decision_is_a_typed_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "course").mkdir()
    (tmp_path / "course" / "01.json").write_text(content)
    with pytest.raises(ConfigError, match="01.json"):
        previous_decision("01")


def test_catalogue_has_no_sentence_that_nobody_shows() -> None:
    code = "".join(path.read_text() for path in Path(check.__code__.co_filename).parent.glob("*.py"))
    assert [key for key in STRINGS if code.count(f'"{key}"') < 2] == []
