"""Predict, then measure, then see how far off you were.

Committing to a number first is what makes a measurement surprising, and a surprise is remembered. So a
prediction can be locked in once, and not after the measurement has been revealed. With LABKIT_HEADLESS=1
(tests, sweeps, grading) nothing is asked: the prediction says "not answered" and never blocks.
"""

from __future__ import annotations

import html
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labkit.errors import ConfigError, nearest
from labkit.teach.catalogue import text

Answer = float | str
_SPOT_ON = 1.05


def predict(question: str, choices: Sequence[str] = (), *, unit: str = "") -> Prediction:
    """Ask for a number in `unit`, or for one of `choices`; as a cell's last line it shows a form.

    guess = predict("How many times smaller?", unit="×") or predict("Which is faster?", ["int8", "float32"])
    """
    return Prediction(question, tuple(choices), unit)


@dataclass(frozen=True)
class Reveal:
    """A prediction beside the measurement: `factor` is how many times off it was, None for what has none."""

    predicted: Answer | None
    measured: Answer
    factor: float | None
    message: str

    def __repr__(self) -> str:
        return self.message

    def _repr_html_(self) -> str:
        return f"<p><strong>{html.escape(self.message)}</strong></p>"


class Prediction:
    """A question and its answer, which is None until it is locked in."""

    def __init__(self, question: str, choices: tuple[str, ...] = (), unit: str = "") -> None:
        self.question, self.choices, self.unit = question, choices, unit
        self.answer: Answer | None = None
        self.is_open = True

    def lock(self, answer: Answer) -> None:
        """Lock the answer in for good; ConfigError if it is not a choice, not a number, or comes too late."""
        if not self.is_open:
            raise ConfigError(f"{self.question!r} is closed: predict once, and before the measurement")
        if self.choices and answer not in self.choices:
            raise ConfigError(f"answer={answer!r} is not a choice; {nearest(str(answer), self.choices)}")
        self.answer = answer if self.choices else _number(answer, self.unit)
        self.is_open = False

    def reveal(self, measured: Answer, why: str = "") -> Reveal:
        """Show the measurement beside the prediction, and `why` it came out so; closes the prediction."""
        self.is_open = False
        factor = _factor(self.answer, measured)
        words = {"measured": self._with_unit(measured), "why": why}
        if self.answer is None:
            message = text("reveal.open", **words)
        else:
            words["answer"] = self._with_unit(self.answer)
            if self.answer == measured or factor is not None and factor < _SPOT_ON:
                message = text("reveal.exact", **words)
            elif factor is not None:
                message = text("reveal.factor", factor=factor, **words)
            elif isinstance(self.answer, str) or isinstance(measured, str):
                message = text("reveal.other", **words)
            else:
                message = text("reveal.difference", difference=abs(self.answer - measured), **words)
        return Reveal(self.answer, measured, factor, message)

    def form(self) -> Any:
        """An ipywidgets form: the question, a field for the answer, and a button that locks it in."""
        import ipywidgets as widgets

        label, style = text("predict.answer", unit=self.unit), {"description_width": "initial"}
        field = (
            widgets.RadioButtons(options=self.choices, value=None, description=label, style=style)
            if self.choices
            else widgets.Text(description=label, style=style)
        )
        button = widgets.Button(description=text("predict.lock"), layout=widgets.Layout(width="auto"))
        status = widgets.HTML(html.escape(repr(self)))

        def lock(_: Any) -> None:
            try:
                self.lock(field.value)
                status.value = html.escape(repr(self))
            except ConfigError as error:
                status.value = f'<span role="status">{html.escape(str(error))}</span>'
            button.disabled = field.disabled = not self.is_open

        button.on_click(lock)
        button.disabled = field.disabled = not self.is_open
        return widgets.VBox([status, field, button])

    def __repr__(self) -> str:
        if self.answer is None:
            return text("predict.open", question=self.question)
        return text("predict.locked", question=self.question, answer=self._with_unit(self.answer))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """The form in a live notebook; text for a reader who has none, and with LABKIT_HEADLESS=1."""
        shown: dict[str, Any] = {"text/plain": repr(self), "text/html": f"<p>{html.escape(repr(self))}</p>"}
        if os.environ.get("LABKIT_HEADLESS") == "1":
            return shown
        return {**self.form()._repr_mimebundle_(), **shown}

    def _with_unit(self, value: Answer) -> str:
        return f"{value if isinstance(value, str) else format(value, '.3g')} {self.unit}".strip()


def _number(answer: Any, unit: str) -> float:
    """A finite number, given as one or as the text of one."""
    try:
        number = float(answer)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"answer={answer!r} must be a number, such as 2.5 {unit}")
    return number


def _factor(predicted: Answer | None, measured: Answer) -> float | None:
    """Times off, 1 or more, of two numbers of the same sign; None for anything else."""
    if isinstance(predicted, (str, type(None))) or isinstance(measured, str) or predicted * measured <= 0:
        return None
    ratio = float(predicted) / float(measured)
    return max(ratio, 1 / ratio)
