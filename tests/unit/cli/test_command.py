import importlib.util

import pytest

from msm_fast.cli import main


def test_without_a_command_the_usage_is_shown(capsys):
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "COMMAND" in capsys.readouterr().err


def test_what_the_demo_needs_and_is_missing_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["demo", "--once"]) == 2
    assert capsys.readouterr().err == "The demo needs gunicorn and rich: pip install 'msm-fast[demo]'.\n"


@pytest.mark.parametrize("option", ["--sessions=0", "--sessions=x", "--seconds=0", "--seconds=nan", "--seconds=inf"])
def test_a_number_that_makes_no_sense_is_refused(option, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["demo", option])
    assert option.partition("=")[0] in capsys.readouterr().err
