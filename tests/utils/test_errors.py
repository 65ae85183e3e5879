"""Errors of users."""

from korser.utils.errors import UserError


def test_ipython_shows_the_message_alone():
    assert UserError("lr=x: expected a number")._render_traceback_() == ["UserError: lr=x: expected a number"]
