"""Chat templates: messages to the text that a model was trained on, through the package jinja2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any


class ChatTemplate:
    """A template in Jinja's language, as models carry it.

    Args:
        source: the template. It comes with a model, so it runs in Jinja's sandbox.
        bos, eos: the words of these tokens, which templates refer to.
    """

    def __init__(self, source: str, bos: str = "", eos: str = "") -> None:
        self.source = source
        self._words = {"bos_token": bos, "eos_token": eos}

    def render(self, messages: Sequence[Mapping[str, str]], answer: bool = True) -> str:
        """The text of messages, dicts with "role" and "content"; with `answer` it ends where the model's answer begins.

        Raises ValueError for messages or a template that do not work out.
        """
        if isinstance(messages, (str, Mapping)) or not all(isinstance(message, Mapping) for message in messages):
            raise TypeError("messages: expected a list of dicts with role and content")
        try:
            return _compiled(self.source).render(
                messages=[dict(message) for message in messages], add_generation_prompt=answer, **self._words
            )
        except ImportError:
            raise
        except Exception as error:  # whatever a template may do
            raise ValueError(f"chat template: {type(error).__name__}: {error}") from None


@lru_cache(maxsize=16)
def _compiled(source: str) -> Any:
    try:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise ImportError("chat templates need the package jinja2: pip install jinja2") from None

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(raise_exception=refuse, strftime_now=lambda form: datetime.now().strftime(form))
    return environment.from_string(source)
