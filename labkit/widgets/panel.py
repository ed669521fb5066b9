"""Panel: a form says what to do, a job does it, a view shows it. No numbers are made here.

The reader alone writes the form's widgets, the job alone the others: two writers at once would lose updates.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets

from labkit.errors import LabkitError
from labkit.measure.front import value
from labkit.progress import Progress
from labkit.widgets.catalogue import text
from labkit.widgets.form import Form
from labkit.widgets.job import Job
from labkit.widgets.view import View


class Panel(widgets.VBox):  # type: ignore[misc]
    """A form with Run and Stop, the progress, the command line that does the same, and a view of the rows.

    work(config, show, progress=…) measures, and calls `show` with all rows so far. command(config) is what
    to type into a terminal. recorded() reads rows that were measured before; only with it is there a button.
    """

    def __init__(
        self,
        form: Form,
        work: Callable[..., Any],
        command: Callable[[Any], str],
        view: View | None = None,
        recorded: Callable[[], Sequence[Any]] | None = None,
    ) -> None:
        self.form, self.job, self.view = form, Job(self._work_afresh), view or View()
        self._work, self._command, self._recorded = work, command, recorded
        self.run_button = self._button("run", self.run)
        self.stop_button = self._button("stop", self.stop)
        self.recorded_button = self._button("recorded", self.show_recorded)
        self.progress = widgets.FloatProgress(max=1.0, description=text("progress"))
        self.status, self.command = widgets.HTML(), widgets.HTML()
        for name in ("progress", "status", "command"):
            getattr(self, name).add_class(f"labkit-{name}")
        buttons = [self.run_button, self.stop_button, *([self.recorded_button] if recorded else [])]
        bar = widgets.HBox([*buttons, self.progress, self.status])
        super().__init__([form, bar, self.view, self.command])
        self.add_class("labkit-panel")
        self.form.observe(self._form_changed, "config")
        self.job.observe(self._job_changed)
        self._form_changed()
        self._job_changed()

    def run(self) -> None:
        """Start what the form says; LabkitError if the form is invalid or a run is under way."""
        self.job.start(self.form.build())

    def stop(self) -> None:
        """Ask the job to stop; it does so at its next batch."""
        self.job.stop()
        self._job_changed()

    def show_recorded(self) -> None:
        """Show what was measured before, and say where; LabkitError if it cannot be read."""
        if self.job.state == "running" or self._recorded is None:
            raise LabkitError(text("recorded.refused"))
        rows = self._recorded()
        self.view.show(rows)
        environment = value(rows[0], "environment") if rows else {}
        self.say(text("recorded.shown", cpu=environment.get("cpu_model", "?")))

    def say(self, words: str) -> None:
        """Write plain text into the status line; screen readers read it out."""
        self.status.value = f'<span role="status">{html.escape(words)}</span>'

    def _work_afresh(self, config: Any, progress: Progress) -> Any:
        self.view.show(())  # what an earlier run found is not this run's
        return self._work(config, self.view.show, progress=progress)

    def _button(self, key: str, action: Callable[[], None]) -> widgets.Button:
        def clicked(_: object) -> None:
            try:
                action()
            except LabkitError as error:
                self.say(str(error))

        button = widgets.Button(description=text(key), tooltip=text(f"{key}.help"))
        button.add_class(f"labkit-{key}")
        button.on_click(clicked)
        return button

    def _form_changed(self, change: object = None) -> None:
        line = text("command.none") if self.form.config is None else self._command(self.form.config)
        self.command.value = f"{html.escape(text('command'))}<pre>{html.escape(line)}</pre>"

    def _job_changed(self, change: object = None) -> None:
        job, running = self.job, self.job.state == "running"
        self.run_button.disabled = self.recorded_button.disabled = running
        self.stop_button.disabled = not running or job.stopping
        self.progress.value = job.fraction
        self.say(text(f"state.{'stopping' if job.stopping else job.state}", message=job.message))
