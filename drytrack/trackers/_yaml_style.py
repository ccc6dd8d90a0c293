"""How plain data is laid out as YAML that people read; importing it needs PyYAML."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from drytrack.core._frozen import FrozenDict, FrozenList

if TYPE_CHECKING:
    from yaml.emitter import ScalarAnalysis

MAX_LINE = 80
"""Characters beyond which a text becomes a block, and a list one line for each item."""

MAX_FLOW_ITEMS = 16

_SEPARATORS = frozenset("\r\x85\u2028\u2029\ufeff")
_SCALARS = (str, int, float, bool, type(None))


class _ReadableDumper(yaml.SafeDumper):
    """Writes literal blocks and short lists on one line; PyYAML stays as it is."""

    def ignore_aliases(self, data: object) -> bool:
        """Write what occurs twice twice: references are hard to read."""
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent lists below their key."""
        return super().increase_indent(flow, False)

    def analyze_scalar(self, scalar: str) -> ScalarAnalysis:
        """Allow blocks wherever they are exact, and nothing that is not.

        PyYAML falls back to quotes for tabs and for blanks at the end of a line;
        on the other hand it writes some line separators as they are and reads
        them as line feeds.
        """
        analysis = super().analyze_scalar(scalar)
        analysis.allow_block = _is_exact_as_block(scalar)
        if not _SEPARATORS.isdisjoint(scalar):
            analysis.allow_flow_plain = analysis.allow_block_plain = False
            analysis.allow_single_quoted = False  # what is left escapes them
        return analysis


def _is_exact_as_block(text: str) -> bool:
    lines = text.split("\n")
    # An indentation that begins with blank lines or a tab would be guessed wrong,
    # and blanks alone on the last line would be taken for nothing.
    begins_well = bool(lines[0]) and not lines[0][0].isspace()
    ends_well = not lines[-1] or not lines[-1].isspace()
    return (
        begins_well
        and ends_well
        and all(line.replace("\t", "").isprintable() for line in lines)
    )


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    is_block = "\n" in text or len(text) > MAX_LINE
    style = "|" if is_block and _is_exact_as_block(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_list(dumper: yaml.SafeDumper, items: list[object]) -> yaml.SequenceNode:
    is_short = (
        len(items) <= MAX_FLOW_ITEMS
        and all(isinstance(item, _SCALARS) for item in items)
        and sum(len(str(item)) + 2 for item in items) < MAX_LINE
    )
    return dumper.represent_sequence(
        "tag:yaml.org,2002:seq", items, flow_style=is_short
    )


def _represent_dict(
    dumper: yaml.SafeDumper, mapping: dict[str, object]
) -> yaml.MappingNode:
    # An empty one has no other form than {}.
    return dumper.represent_mapping(
        "tag:yaml.org,2002:map", mapping, flow_style=not mapping
    )


_ReadableDumper.add_representer(str, _represent_text)
_ReadableDumper.add_representer(list, _represent_list)
_ReadableDumper.add_representer(FrozenList, _represent_list)
_ReadableDumper.add_representer(dict, _represent_dict)
_ReadableDumper.add_representer(FrozenDict, _represent_dict)


def dump(data: object) -> str:
    """Return plain data as YAML; ``yaml.safe_load`` gives it back.

    Args:
        data: What `drytrack.core._plain.to_plain` returns, or dates.
    """
    return str(
        yaml.dump(
            data,
            Dumper=_ReadableDumper,
            allow_unicode=True,
            default_flow_style=False,
            sort_keys=False,
            width=MAX_LINE + 8,
        )
    )
