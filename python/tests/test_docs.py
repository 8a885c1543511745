"""The docstrings: every public name says what it is, and has an example."""

from __future__ import annotations

import inspect
from types import ModuleType

import pytest

import hangwatch
import hangwatch.timer
import hangwatch.torch


@pytest.mark.parametrize("module", [hangwatch, hangwatch.timer, hangwatch.torch])
def test_every_public_name_has_a_docstring_with_an_example(module: ModuleType) -> None:
    assert inspect.getdoc(module)
    for name in module.__all__:
        # Its own, and not one that a class has from the class before it.
        doc = getattr(module, name).__doc__
        assert doc and "Example:" in doc and ">>>" in doc, f"{module.__name__}.{name}: {doc}"


@pytest.mark.parametrize("module", [hangwatch, hangwatch.timer, hangwatch.torch])
def test_every_public_method_has_a_docstring(module: ModuleType) -> None:
    for name in module.__all__:
        public = getattr(module, name)
        members = vars(public).items() if inspect.isclass(public) else []
        for member, value in members:
            is_code = callable(value) or inspect.isdatadescriptor(value)
            if is_code and not member.startswith("_") and not inspect.ismemberdescriptor(value):
                assert inspect.getdoc(value), f"{module.__name__}.{name}.{member}"
