"""Panels with no browser: set a value, click, wait for the job, look at what the widgets say."""

from __future__ import annotations

import dataclasses
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ipywidgets as widgets
import pytest
from typer.main import get_command

from labkit import plots
from labkit.cli import app
from labkit.errors import Cancelled, ConfigError, LabkitError
from labkit.measure import Candidate, Protocol, measure
from labkit.pipeline import TECHNIQUES
from labkit.progress import Progress
from labkit.prune import PruneMagnitude
from labkit.study import Study
from labkit.technique import check_knobs, knob
from labkit.widgets import ComparePanel, Form, Job, Panel, catalogue, compare_work
from labkit.widgets.catalogue import STRINGS, text
from labkit.widgets.command import measure_command, technique_command
from labkit.widgets.form import Several
from labkit.widgets.job import REPORT_EVERY_S
from labkit.zoo import load_model

HOSTILE = '<img src=x onerror="alert(1)">'
CLICK_S = 0.1
RECORDED_S = 0.2
WAIT_S = 30.0


def row(variant: str = "int8", latency_p50_ms: float = 1.5) -> dict[str, Any]:
    return {
        "variant": variant,
        "runtime": "onnxruntime",
        "latency_p50_ms": latency_p50_ms,
        "quality": 0.9,
        "quality_ci95": (0.88, 0.92),
        "environment": {"cpu_model": "Z80"},
    }


@dataclasses.dataclass(frozen=True)
class Settings:
    """One field of each kind, and a rule that concerns two of them."""

    ratio: float = knob(0.5, "a share", above=0.0, below=1.0)
    rate: float = knob(0.0005, "a small number", above=0.0, max=10.0)
    bits: int = knob(8, "few values", min=2, max=8, unit="bits")
    epochs: int = knob(6, "many values", min=1, max=1000)
    method: str = knob("l1", "one of several", choices=("l1", "l2"))
    fine: bool = knob(False, "on or off")
    budget_ms: float | None = knob(None, "may be left empty", above=0, unit="ms")

    def __post_init__(self) -> None:
        check_knobs(self)
        if self.fine and self.epochs > 100:
            raise ConfigError(f"fine takes 100 epochs at most {HOSTILE}")


def notes(form: Form) -> str:
    """Everything that the form says in words."""
    return "\n".join(each.value for each in _all(form) if isinstance(each, widgets.HTML))


def _all(widget: Any) -> Iterator[Any]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from _all(child)


# Forms


def test_each_field_gets_the_plainest_control_that_fits() -> None:
    kinds = {name: type(control).__name__ for name, control in Form(Settings).controls.items()}
    assert kinds == {
        "ratio": "FloatSlider",
        "rate": "FloatText",
        "bits": "IntSlider",
        "epochs": "IntText",
        "method": "Dropdown",
        "fine": "Checkbox",
        "budget_ms": "Text",
    }


@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda technique: technique.name)
def test_every_technique_has_a_form_whose_first_values_are_its_defaults(technique: type[Any]) -> None:
    assert Form(technique).build() == technique()


@pytest.mark.parametrize("technique", [Settings, *TECHNIQUES], ids=lambda technique: technique.__name__)
def test_every_control_has_a_description_and_its_help_beside_it(technique: type[Any]) -> None:
    form = Form(technique)
    for field in dataclasses.fields(technique):
        if field.metadata and field.name not in getattr(technique, "idle", ()):
            assert form.controls[field.name].description
            assert plots.html.escape(field.metadata["help"]) in notes(form)


def test_a_slider_stops_a_step_before_an_end_that_is_excluded() -> None:
    slider = Form(Settings).controls["ratio"]
    assert (slider.min, slider.max) == pytest.approx((0.01, 0.99))


def test_what_is_set_is_what_is_built() -> None:
    form = Form(Settings, method="l2")
    form.controls["ratio"].value = 0.7
    form.controls["bits"].value = 4
    form.controls["fine"].value = True
    form.controls["budget_ms"].value = "2.5"
    expected = Settings(ratio=0.7, bits=4, method="l2", fine=True, budget_ms=2.5)
    assert form.build() == form.config == expected


def test_fields_that_are_not_shown_keep_their_first_value() -> None:
    form = Form(Settings, show=("ratio",), epochs=9)
    assert list(form.controls) == ["ratio"]
    assert form.build() == Settings(epochs=9)


def test_a_wrong_value_is_named_beside_its_field_and_raises_only_when_built() -> None:
    form = Form(Settings)
    form.controls["epochs"].value = 5000
    beside = form.children[list(form.controls).index("epochs")].children[1].value
    assert "Settings.epochs=5000 is out of range" in beside and "✗" in beside
    assert form.config is None
    with pytest.raises(ConfigError, match="epochs=5000"):
        form.build()
    form.controls["epochs"].value = 5
    assert "out of range" not in notes(form)
    assert form.config == Settings(epochs=5)


def test_an_error_of_no_one_field_is_shown_at_the_end_and_escaped() -> None:
    form = Form(Settings)
    form.controls["fine"].value = True
    form.controls["epochs"].value = 200
    assert "fine takes 100 epochs at most" in form.children[-1].value
    assert "<img" not in notes(form)


@pytest.mark.parametrize("typed", [HOSTILE, "1e999", "[", "-3", "nan", "None", "()", "9" * 5000])
def test_no_text_that_is_typed_makes_an_update_raise(typed: str) -> None:
    form = Form(Settings)
    form.controls["budget_ms"].value = typed
    assert "<img" not in notes(form)


def test_several_ticks_make_a_tuple_in_the_given_order() -> None:
    several = Several(("a", "b", "c"), ("c",), "letters")
    several.boxes["a"].value = True
    assert several.value == ("a", "c")
    several.value = ("b",)
    assert [box.value for box in several.boxes.values()] == [False, True, False]


# Jobs


def steps(count: int, pause_s: float = 0.01) -> Callable[..., int]:
    """Work that reports `count` times."""

    def work(progress: Progress) -> int:
        for step in range(count):
            time.sleep(pause_s)
            progress((step + 1) / count, f"step {step + 1}")
        return count

    return work


def test_a_job_returns_what_its_function_returned() -> None:
    job = Job(lambda a, b, progress: a + b)
    job.start(2, 3)
    assert job.result(WAIT_S) == 5
    assert (job.state, job.fraction) == ("done", 1.0)


@pytest.mark.parametrize(
    "error", [ValueError("broken"), LabkitError("refused"), SystemExit(3), KeyboardInterrupt()]
)
def test_a_failing_job_raises_the_very_same_error_from_result(error: BaseException) -> None:
    def work(progress: Progress) -> None:
        raise error

    job = Job(work)
    job.start()
    with pytest.raises(type(error)) as raised:
        job.result(WAIT_S)
    assert raised.value is error
    assert job.state == "failed"
    assert str(error) in job.message


def test_stop_takes_effect_at_the_next_report() -> None:
    job = Job(steps(10_000))
    job.start()
    job.stop()
    assert job.stopping
    with pytest.raises(Cancelled):
        job.result(WAIT_S)
    assert (job.state, job.stopping) == ("stopped", False)
    assert job.fraction < 1


def test_a_stopped_job_can_start_again_and_a_late_stop_does_not_end_the_next_run() -> None:
    job = Job(steps(3))
    job.start()
    job.result(WAIT_S)
    job.stop()
    job.start()
    assert job.result(WAIT_S) == 3


def test_a_second_start_is_refused_while_the_first_one_runs() -> None:
    job = Job(steps(10_000))
    job.start()
    with pytest.raises(LabkitError, match="running already"):
        job.start()
    job.stop()
    with pytest.raises(Cancelled):
        job.result(WAIT_S)


def test_of_many_threads_that_start_at_once_one_wins() -> None:
    begun, refused, all_have_tried = [], [], threading.Event()
    job = Job(lambda progress: (begun.append(1), all_have_tried.wait(WAIT_S)))

    def start() -> None:
        try:
            job.start()
        except LabkitError:
            refused.append(1)

    threads = [threading.Thread(target=start) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    all_have_tried.set()
    job.result(WAIT_S)
    assert (len(begun), len(refused)) == (1, 19)


def test_asking_for_a_result_too_early_says_so() -> None:
    job = Job(steps(10_000))
    with pytest.raises(LabkitError, match="nothing has run yet"):
        job.result()
    job.start()
    with pytest.raises(TimeoutError, match="still running"):
        job.result(timeout=0.01)
    job.stop()


def test_progress_is_passed_on_about_ten_times_a_second() -> None:
    job, seen = Job(steps(200, pause_s=0.002)), []
    job.observe(lambda change: seen.append(change.new), "message")
    start = time.monotonic()
    job.start()
    job.result(WAIT_S)
    assert 2 <= len(seen) <= 3 + (time.monotonic() - start) / REPORT_EVERY_S


@pytest.mark.parametrize("fraction", [-1.0, 7.0, float("nan")])
def test_a_fraction_outside_0_to_1_is_brought_inside(fraction: float) -> None:
    job, seen = Job(lambda progress: progress(fraction, "odd")), []
    job.observe(lambda change: seen.append(change.new), "fraction")
    job.start()
    job.result(WAIT_S)
    assert all(0 <= each <= 1 for each in seen)


def test_observers_see_one_order_and_may_ask_for_the_result() -> None:
    job, seen = Job(steps(1)), []

    def changed(change: Any) -> None:
        seen.append((change.new, job.result() if change.new == "done" else None))

    job.observe(changed, "state")
    job.start()
    job.result(WAIT_S)
    assert seen == [("running", None), ("done", 1)]


def test_the_worker_never_keeps_python_alive() -> None:
    job = Job(steps(10_000))
    job.start()
    (worker,) = [thread for thread in threading.enumerate() if thread.name == "labkit-job"]
    assert worker.daemon
    job.stop()


# Panels


def panel(work: Callable[..., Any], **more: Any) -> Panel:
    return Panel(Form(Settings), work, lambda settings: f"labkit do --set bits={settings.bits}", **more)


def growing(rows: int, pause_s: float = 0.01) -> Callable[..., Any]:
    """Work that shows one row more at each step."""

    def work(settings: Settings, show: Callable[[Sequence[Any]], None], progress: Progress) -> None:
        for count in range(1, rows + 1):
            progress(count / rows, f"row {count}")
            show([row(f"v{index}", 1.0 + index) for index in range(count)])
            time.sleep(pause_s)

    return work


def test_run_measures_and_shows_figure_and_table() -> None:
    made = panel(growing(3))
    empty = made.view.figure.value
    made.run_button.click()
    made.job.result(WAIT_S)
    assert made.view.figure.value != empty
    assert "3 candidates; on the Pareto front: v0" in made.view.figure.value
    assert [f">v{index}<" in made.view.table.value for index in range(3)] == [True] * 3
    assert text("state.done") in made.status.value
    assert made.progress.value == 1.0


def test_the_view_grows_while_the_job_runs() -> None:
    made, sizes = panel(growing(3)), []
    made.view.table.observe(lambda change: sizes.append(change.new.count("<tr>")), "value")
    made.run()
    made.job.result(WAIT_S)
    assert sizes == [2, 3, 4]


def test_a_click_changes_the_state_within_100_ms() -> None:
    made = panel(growing(10_000))
    start = time.perf_counter()
    made.run_button.click()
    run_s = time.perf_counter() - start
    assert made.job.state == "running" and made.run_button.disabled and not made.stop_button.disabled
    start = time.perf_counter()
    made.stop_button.click()
    stop_s = time.perf_counter() - start
    assert made.stop_button.disabled or made.job.state == "stopped"
    with pytest.raises(Cancelled):
        made.job.result(WAIT_S)
    assert text("state.stopped") in made.status.value
    assert (made.run_button.disabled, made.stop_button.disabled) == (False, True)
    assert max(run_s, stop_s) < CLICK_S


def test_stop_is_acknowledged_before_it_takes_effect() -> None:
    release = threading.Event()

    def work(settings: Settings, show: Any, progress: Progress) -> None:
        progress(0.1, "a long batch")
        release.wait(WAIT_S)
        progress(0.2, "the next batch")

    made = panel(work)
    made.run()
    made.stop_button.click()
    assert text("state.stopping") in made.status.value
    release.set()
    with pytest.raises(Cancelled):
        made.job.result(WAIT_S)
    assert text("state.stopped") in made.status.value


def test_a_failure_is_shown_escaped_and_raised_again() -> None:
    def work(settings: Settings, show: Any, progress: Progress) -> None:
        raise LabkitError(f"cannot read {HOSTILE}")

    made = panel(work)
    made.run_button.click()
    with pytest.raises(LabkitError, match="cannot read"):
        made.job.result(WAIT_S)
    assert "cannot read &lt;img" in made.status.value


def test_a_failure_while_drawing_is_a_failure_of_the_job() -> None:
    made = panel(lambda settings, show, progress: show([row(latency_p50_ms="fast")]))  # type: ignore[arg-type]
    made.run_button.click()
    with pytest.raises(TypeError):
        made.job.result(WAIT_S)
    assert made.job.state == "failed"


def test_an_invalid_form_starts_nothing() -> None:
    made = panel(growing(1))
    made.form.controls["epochs"].value = 0
    assert text("command.none") in made.command.value
    made.run_button.click()
    assert made.job.state == "idle"
    assert "epochs=0" in made.status.value
    with pytest.raises(ConfigError):
        made.run()


def test_the_command_follows_the_form() -> None:
    made = panel(growing(1))
    made.form.controls["bits"].value = 3
    assert "<pre>labkit do --set bits=3</pre>" in made.command.value


def hostile_markup(made: Panel) -> bool:
    """Whether a name got into any of the panel's HTML as an element."""
    return any("<img src=x" in each.value for each in _all(made) if isinstance(each, widgets.HTML))


def shown_hostile() -> Panel:
    made = panel(growing(1))
    made.view.show([row(HOSTILE)])
    made.say(HOSTILE)
    return made


def test_names_with_html_in_them_stay_text() -> None:
    made = shown_hostile()
    assert not hostile_markup(made)
    assert "&lt;img" in made.view.table.value + made.view.figure.value + made.status.value


def test_the_check_above_notices_a_panel_that_does_not_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots.html, "escape", lambda given: given)
    assert hostile_markup(shown_hostile())


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    made = panel(growing(2))
    made.run_button.click()
    made.job.result(WAIT_S)
    made.form.controls["epochs"].value = 0
    assert capfd.readouterr() == ("", "")


def test_recorded_rows_are_shown_at_once_and_say_where_they_come_from() -> None:
    made = panel(growing(1), recorded=lambda: [row(f"v{index}", 1.0 + index) for index in range(8)])
    times = []
    for _ in range(5):
        start = time.thread_time()  # of this thread alone: other tests run beside this one
        made.recorded_button.click()
        times.append(time.thread_time() - start)
    assert min(times) < RECORDED_S
    assert "8 candidates" in made.view.figure.value
    assert "Z80" in made.status.value


def test_without_a_recording_there_is_no_button_for_it() -> None:
    made = panel(growing(1))
    assert made.recorded_button not in list(_all(made))
    with pytest.raises(LabkitError):
        made.show_recorded()


def test_recorded_rows_do_not_overwrite_a_run_that_is_under_way() -> None:
    made = panel(growing(10_000), recorded=lambda: [row()])
    made.run()
    with pytest.raises(LabkitError, match="under way"):
        made.show_recorded()
    made.stop()


def test_every_part_has_the_class_by_which_tests_and_styles_find_it() -> None:
    made = panel(growing(1), recorded=lambda: [])
    classes = {name for each in _all(made) for name in getattr(each, "_dom_classes", ())}
    parts = ("panel", "form", "run", "stop", "recorded", "progress", "status", "command", "figure", "rows")
    assert {f"labkit-{name}" for name in parts} <= classes


def test_every_string_of_the_catalogue_is_plain_and_used_by_its_key() -> None:
    files = set(Path(plots.__file__).parent.glob("widgets/*.py")) - {Path(catalogue.__file__)}
    sources = "".join(path.read_text(encoding="utf-8") for path in files).replace("'", '"')
    states = {f"state.{state}" for state in ("idle", "running", "stopping", "done", "stopped", "failed")}
    buttons = {f"{key}.help" for key in ("run", "stop", "recorded")}
    for key, string in STRINGS.items():
        assert string.strip() and "<" not in string
        assert f'"{key}"' in sources or key in states | buttons
    with pytest.raises(KeyError):
        text("no such key")


# The compare panel


def test_the_compare_panel_measures_each_choice_against_the_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    made = ComparePanel("lenet5@digits", "digits", {"sparse": (PruneMagnitude(sparsity=0.5),)})
    made.form.controls["runtimes"].value = ("torch",)
    made.run_button.click()
    baseline, sparse = made.job.result(120)
    assert (baseline["variant"], baseline["speedup"]) == ("lenet5@digits", None)
    assert "prune_magnitude" in sparse["variant"]
    low, high = sparse["speedup_ci95"]
    assert low <= sparse["speedup"] <= high
    assert sparse["variant"] in made.view.table.value


def test_candidates_of_several_runs_are_shown_at_the_first_baselines_pace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The machine is half as fast in the second run: as measured, the faster candidate would look slower."""
    runs = iter([planted(40.0, 10.0, 4.2), planted(80.0, 16.0, 5.0)])
    monkeypatch.setattr(compare_work, "measure", lambda *_, **__: next(runs))
    monkeypatch.setattr(compare_work, "compare", lambda rows: SimpleNamespace(to_rows=lambda: rows))
    chains = {f"sparse{index}": (PruneMagnitude(sparsity=0.1 * index),) for index in (1, 2)}
    made = ComparePanel("lenet5@digits", "digits", chains)
    made.form.controls["runtimes"].value = ("torch",)
    made.run_button.click()
    baseline, *candidates = made.job.result(WAIT_S)
    assert baseline == planted(40.0, 10.0, 4.2)[0]
    for row in candidates:
        assert baseline["latency_p50_ms"] / row["latency_p50_ms"] == pytest.approx(row["speedup"])
        assert row["latency_p95_ms"] / row["latency_p50_ms"] == pytest.approx(1.5)
        assert row["throughput_samples_per_s"] / baseline["throughput_samples_per_s"] == row["speedup"]
        assert row["latency_p99_ms"] is None
    assert candidates[1]["latency_p50_ms"] == pytest.approx(8.0)
    assert f"<p>{text('compare.pace')}</p>" in made.view.table.value


def planted(baseline_ms: float, candidate_ms: float, speedup: float) -> list[dict[str, Any]]:
    """The rows of one run: the baseline's, the candidate's."""
    return [
        {
            "variant": name,
            "runtime": "torch",
            "quality": 0.9,
            "latency_p50_ms": median_ms,
            "latency_p95_ms": 1.5 * median_ms,
            "latency_p99_ms": None,
            "throughput_samples_per_s": 1000 / median_ms,
            "speedup": ratio,
        }
        for name, median_ms, ratio in (("model", baseline_ms, None), ("sparse", candidate_ms, speedup))
    ]


def test_a_row_without_times_stays_as_it_is() -> None:
    baseline, candidate = planted(40.0, 10.0, 4.0)
    for name in ("speedup", "latency_p50_ms"):
        bare = {**candidate, name: None}
        assert compare_work.at_pace(bare, baseline) == bare


def test_the_compare_panel_wants_at_least_one_of_each() -> None:
    made = ComparePanel("lenet5@digits", "digits", {"sparse": (PruneMagnitude(),)})
    made.form.controls["variants"].value = ()
    assert made.form.config is None
    assert text("several.none") in notes(made.form)


def test_the_compare_panel_says_when_no_runtime_fits() -> None:
    made = ComparePanel("lenet5@digits", "digits", {"sparse": (PruneMagnitude(),)})
    made.form.controls["runtimes"].value = ("onnxruntime",)
    made.run_button.click()
    with pytest.raises(ConfigError, match="torch runs PyTorch"):
        made.job.result(WAIT_S)


def test_the_compare_panel_shows_what_was_recorded(tmp_path: Path, digits: Any) -> None:
    candidate = Candidate(load_model("lenet5@digits"), "torch")
    records = measure([candidate], digits, n_samples=50, protocol=Protocol.quick())
    Study(tmp_path / "study").append_run(records)
    made = ComparePanel(
        "lenet5@digits", "digits", {"sparse": (PruneMagnitude(),)}, recorded=tmp_path / "study"
    )
    made.recorded_button.click()
    assert "1 candidates" in made.view.figure.value
    made = ComparePanel(
        "lenet5@digits", "digits", {"sparse": (PruneMagnitude(),)}, recorded=tmp_path / HOSTILE
    )
    made.recorded_button.click()
    assert "there is no study" in made.status.value and not hostile_markup(made)


@pytest.fixture(scope="module")
def digits() -> Any:
    from labkit.data import load_dataset

    return load_dataset("digits")


def test_the_compare_panel_names_its_baseline_first_in_the_command() -> None:
    made = ComparePanel("lenet5@digits", "digits", {"sparse": (PruneMagnitude(sparsity=0.9),)})
    made.form.controls["runtimes"].value = ("openvino",)
    assert "labkit prune lenet5@digits --method magnitude --set sparsity=0.9" in made.command.value
    assert "labkit measure lenet5@digits sparse --runtime torch --runtime openvino" in made.command.value


@pytest.mark.parametrize(
    "technique", [each for each in TECHNIQUES if each.name != "train"], ids=lambda technique: technique.name
)
def test_every_command_is_one_that_the_terminal_knows(technique: type[Any]) -> None:
    _, name, *words = shlex.split(technique_command(technique(), "lenet5@digits", "digits", "out"))
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    command.make_context(name, list(words))
    if "--method" in words:
        assert words[words.index("--method") + 1] in command.help


def test_the_measure_command_is_one_that_the_terminal_knows() -> None:
    _, name, *words = shlex.split(measure_command(["a", "b"], ["torch", "openvino"], "digits", 8, 2))
    asked = get_command(app).commands[name].make_context(name, words).params  # type: ignore[attr-defined]
    assert (asked["variants"], asked["runtime"]) == (["a", "b"], ["torch", "openvino"])
    assert (asked["dataset"], asked["batch_size"], asked["threads"]) == ("digits", 8, 2)


def test_every_name_in_a_command_is_quoted() -> None:
    technique = PruneMagnitude(sparsity=0.9, scope="layer")
    line = technique_command(technique, "my model", "digits", "out")
    settings = "--set sparsity=0.9 --set scope=layer"
    assert line == f"labkit prune 'my model' --method magnitude {settings} --dataset digits --out out"
    assert measure_command(["a", "$(b)"], ["torch"], "digits", 8, 2) == (
        "labkit measure a '$(b)' --runtime torch --dataset digits --batch-size 8 --threads 2"
    )
