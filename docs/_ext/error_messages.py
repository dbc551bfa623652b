"""The directive ``error-messages``: all messages of the package in groups, with links to explanations."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from errors import (
    GROUPS,
    PACKAGE,
    PAGE,
    Explanation,
    Message,
    collect_messages,
    group_of,
    quotes,
    read_explanations,
)
from sphinx.util.docutils import SphinxDirective


class ErrorMessages(SphinxDirective):
    """All messages in groups, each with its error and module, and a link to its explanation if it has one."""

    def run(self) -> list[nodes.Node]:
        """Return a section for each group."""
        explanations = read_explanations()
        for path in (PAGE, *PACKAGE.rglob("*.py")):
            self.env.note_dependency(str(path))
        grouped: dict[str, list[Message]] = {title: [] for title, _ in GROUPS}
        for message in collect_messages():
            grouped[group_of(message.module)].append(message)
        sections: list[nodes.Node] = []
        for title, messages in grouped.items():
            if not messages:
                continue
            section = nodes.section(ids=[nodes.make_id(title)], classes=["error-messages"])
            section += nodes.title(text=title)
            self.state.document.note_implicit_target(section)
            section += nodes.bullet_list("", *(self._item(message, explanations) for message in messages))
            sections.append(section)
        return sections

    def _item(self, message: Message, explanations: list[Explanation]) -> nodes.list_item:
        paragraph = nodes.paragraph()
        paragraph += nodes.literal(
            "", message.text, classes=["error-text"]
        )  # quotes and dashes stay as they are
        place = f"{message.kind}, {message.module}" if message.kind else message.module
        paragraph += nodes.inline("", f" {place}", classes=["error-place"])
        for explanation in explanations:
            if any(quotes(quotation, message.text) for quotation in explanation.quotations):
                target = f"{PAGE.stem}.html#{nodes.make_id(explanation.section)}"
                paragraph += [nodes.Text(" "), nodes.reference("", "explained", refuri=target)]
                break
        return nodes.list_item("", paragraph)


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("error-messages", ErrorMessages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
