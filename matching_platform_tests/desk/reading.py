"""Reads a page as a person does: by its headings, links, forms and what is said. Elements are named by XPath."""

from dataclasses import dataclass
from typing import Any

import httpx
from lxml import html


@dataclass(frozen=True)
class Form:
    """A form with what its fields hold."""

    action: str
    method: str
    fields: dict[str, list[str]]

    def sent(self, client: httpx.Client, **changed: Any) -> httpx.Response:
        """The answer to it, with some fields changed; None takes a field away."""
        fields = {name: value for name, value in {**self.fields, **changed}.items() if value is not None}
        if self.method == "get":
            return client.get(self.action, params=fields)
        return client.post(self.action, data=fields)


class Read:
    """A page that was answered."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.status = answer.status_code
        self.tree = html.fromstring(answer.text)

    def texts(self, path: str) -> list[str]:
        """What is said in each element."""
        return [" ".join(found.text_content().split()) for found in self.tree.xpath(path)]

    def text(self, path: str = "//main") -> str:
        return self.texts(path)[0]

    def values(self, path: str) -> list[str]:
        """Values of attributes."""
        return list(self.tree.xpath(path))

    def key(self, key: str) -> Form:
        """The form that a key sends."""
        return self.form(f"//form[.//button[@data-key='{key}']]")

    def form(self, path: str) -> Form:
        form = self.tree.xpath(path)[0]
        fields: dict[str, list[str]] = {}
        for name, value in form.form_values():
            fields.setdefault(name, []).append(value)
        return Form(form.get("action"), form.get("method", "get"), fields)
