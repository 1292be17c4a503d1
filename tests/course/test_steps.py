"""Steps that a reader writes: the right one is taken over, a wrong one is told what is wrong, an open one is passed."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from wavelldm.course import steps
from wavelldm.errors import WavelldmError


@pytest.mark.parametrize("name", steps.STEPS)
def test_the_finished_function_passes_and_every_slip_gets_its_hint(name, capsys):
    step = steps.STEPS[name]

    def mine(*arguments):
        return step.right(*arguments)

    assert steps.todo(name, mine) is mine
    assert capsys.readouterr().out.startswith("✓")
    for hint, slip in step.slips.items():
        assert steps.todo(name, slip) is step.right
        assert capsys.readouterr().out == f"✗ {name}: {hint}\n"


def test_an_open_step_is_passed_with_the_finished_one(capsys):
    assert steps.todo("step of a flow", lambda *_: None) is steps.flow_step
    assert "your turn" in capsys.readouterr().out


@pytest.mark.parametrize("kind", (list, np.asarray), ids=("lists", "arrays"))
def test_lists_and_arrays_count_as_numbers(kind):
    def mine(x, end, t, then):
        return kind((x + (then - t) / (1 - t) * (end - x)).tolist())

    assert steps.todo("step of a flow", mine) is mine


@pytest.mark.parametrize(
    ("mine", "said"),
    [
        (lambda x, end, t, then: 1 / 0, "stops with ZeroDivisionError"),
        (lambda x, end, t, then: "x", "return numbers"),
        (lambda x, end, t, then: x[0], "the shape (3,), and should have (2, 3)"),
        (lambda x, end, t, then: x * float("nan"), "NaN"),
        (lambda x, end, t, then: 2 * steps.flow_step(x, end, t, then), "2 times as large"),
        (lambda x, end, t, then: steps.flow_step(x, end, t, then).flip(0), "other values"),
    ],
)
def test_what_is_wrong_is_said(mine, said, capsys):
    assert steps.todo("step of a flow", mine) is steps.flow_step
    assert said in capsys.readouterr().out


def test_an_unknown_step_is_refused():
    with pytest.raises(WavelldmError, match="choose of deep filter"):
        steps.todo("deep fliter", lambda: None)


def test_nested_lists_of_tensors_become_a_tensor():
    assert torch.equal(
        steps.plain([(torch.tensor(1.0), 2.0), [3, np.float32(4)]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    )


def test_every_step_is_asked_for_in_a_notebook_and_written_in_its_solutions():
    folder = Path(__file__).parents[2] / "notebooks"
    for place in (folder, folder / "solutions"):
        texts = [path.read_text() for path in place.glob("[0-9]*.ipynb")]
        named = re.findall(r'course\.todo\(\\"([^"\\]+)\\"', "".join(texts))
        assert sorted(named) == sorted(steps.STEPS), place.name
