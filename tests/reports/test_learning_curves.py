"""Curves are drawn of whatever has a history: generators, and cells however their classifier was trained."""

from reports.sections import learning_curves
from reports.sections.learning_curves import classifier_curves, generator_curves
from reports.study import read_study

STUDY = read_study("arms: {none: {}, together: {}}")
COLOURS = {"none": "#000000", "together": "#ff0000"}


def cell(arm, kind="learn", **changes):
    history = {"step": [10, 20], "loss": [1.0, 0.5], "val_auprc": [0.4, 0.6]}
    cell = {"arm": arm, "receiver": "A", "task": "lesion", "classifier": "cnn", "real_fraction": 1.0}
    return {"unit": "u", "kind": kind, "label": arm, "result": {"cell": cell, "history": history} | changes}


def test_a_classifier_that_several_centres_trained_has_a_curve():
    """Its unit is of another kind, and its history has no loss."""
    history = {"step": [5, 10], "val_auprc": [0.5, 0.7], "stage": ["round", "round"]}
    made = classifier_curves([cell("none"), cell("together", "take_over", history=history)], STUDY, COLOURS)
    assert made is not None and made.alt.endswith("A, lesion, cnn, 100 %: none, together")
    assert generator_curves([cell("together", "take_over", history=history)]) is None


def test_generators_are_the_units_with_losses_and_no_cell():
    generator = {
        "unit": "g",
        "kind": "any",
        "label": "train g",
        "result": {"history": {"step": [1, 2], "critic": [3, 2]}},
    }
    made = generator_curves([generator, cell("none"), {"unit": "x", "kind": "any"}])
    assert made is not None and made.alt == "Training losses of train g: critic"
    assert classifier_curves([generator], STUDY, COLOURS) is None
    assert generator_curves([generator | {"result": {"history": {}}}]) is None


def test_curves_of_generators_are_over_real_images_where_all_counted_them(monkeypatch):
    drawn = []
    monkeypatch.setattr(learning_curves, "curves", lambda panels, **more: drawn.append((panels, more["x_label"])))

    def generator(unit, **counts):
        return {
            "unit": unit,
            "kind": "any",
            "label": unit,
            "result": {"history": {"step": [1, 2], "loss": [3, 2]} | counts},
        }

    counted = generator("new", images=[16, 32], empty_batches=[0, 1])
    generator_curves([counted])
    generator_curves([counted, generator("old")])
    assert drawn == [
        ({"new": {"loss": [([16, 32], [3, 2])]}}, "real images seen"),
        ({"new": {"loss": [([1, 2], [3, 2])]}, "old": {"loss": [([1, 2], [3, 2])]}}, "step"),
    ]


def test_many_generators_alike_are_one_panel_with_their_median():
    def generator(number, steps=(1, 2, 3), critic=None):
        history = {"step": list(steps), "critic": critic or [number, 2 * number, None]}
        return {"unit": f"u{number}", "label": f"g{number:02d}", "result": {"history": history}}

    few = [generator(number) for number in range(1, 13)]
    assert generator_curves(few).alt.count(": critic") == 12
    many = [*few, generator(13), generator(14, steps=(5, 6), critic=[1, 1])]
    assert generator_curves(many).alt == "Training losses of g01, g02, g03, ..., g13 (13): critic; g14: critic"


def test_the_median_and_nine_tenths_of_curves():
    panels = {f"g{n}": {"loss": [([1, 2, 3], [n, None, float("nan")])]} for n in range(101)}
    panels["g0"]["loss"][0][1][1] = 7.0
    ((title, lines),) = learning_curves._together(panels).items()
    assert title.endswith("(101)")
    assert [values for _, values in lines["loss"]] == [[50.0, 7.0, None], [5.0, 7.0, None], [95.0, 7.0, None]]
