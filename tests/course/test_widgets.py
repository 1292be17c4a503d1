import pytest
from lift import catch_displays

from wavelldm.course import widgets
from wavelldm.errors import WavelldmError


def test_moving_a_slider_redraws_with_its_value(monkeypatch):
    places = catch_displays(monkeypatch, widgets)
    controls = widgets.sliders(
        lambda hop, mels, on, gain: [hop * mels, (on, gain)],
        hop=[128, 160, 256],
        mels=(40, 128, 8, 80),
        on=True,
        gain=(0.0, 1.0, 0.1, 0.5),
    )
    assert [p.items for p in places] == [[160 * 80], [(True, 0.5)]]
    controls["hop"].value = 256
    controls["on"].value = False
    assert places[0].items == [160 * 80, 256 * 80, 256 * 80]
    assert places[1].items[-1] == (False, 0.5)


def test_a_choice_that_is_none_is_refused():
    with pytest.raises(WavelldmError, match="'hop' takes"):
        widgets.sliders(print, hop=3)
