"""What ends a command with a message and status 1."""


class Failure(Exception):
    """The message is all that the user needs: what is wrong, and what to do about it."""
