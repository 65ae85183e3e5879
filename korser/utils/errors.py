"""The one exception that is shown to a user as a single line."""


class UserError(Exception):
    """A mistake in the input that the user can mend.

    The message is one line that names the file or key at fault and the fix. Recipes print it without a traceback and
    exit with code 2 (:func:`korser.cli.run`).
    """
