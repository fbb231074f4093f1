"""All findings as one text: the worst first, one entry for a kind of fault, a few examples each."""

import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from termcolor import colored

from tools.data_doctor.findings import Finding, Severity

_COLOURS = {Severity.NOTE: "cyan", Severity.WARNING: "yellow", Severity.ERROR: "red"}
# Examples of a kind that are shown: so many, or as many short ones as fill so many lines.
_SHOWN, _LINES = 3, 2
_INDENT = " " * 8
# A space at which no line ends.
_UNBROKEN = "\N{NO-BREAK SPACE}"
# Lines are as long as the terminal's, within these limits.
_NARROWEST, _WIDEST = 60, 120
# What a run makes of data whose worst finding is of this severity.
_OUTCOMES = {
    Severity.NOTE: "nothing is wrong",
    Severity.WARNING: "training runs, with less or other data than you may think",
    Severity.ERROR: "training stops, or its metrics mean nothing",
}
_VERBS = {"are": "is", "have": "has", "lie": "lies", "reach": "reaches", "contain": "contains",
          "differ": "differs", "match": "matches", "belong": "belongs", "do": "does"}  # fmt: skip
_NOUNS = {"xes": "x", "sses": "ss", "ies": "y", "s": ""}
# The number, what stands before the noun, the noun, what belongs to it, the verb.
_ONE = re.compile(rf"^1 ((?:\w+ )*?)(\w+s)((?: of [\w ]+?)?) ({'|'.join(_VERBS)}) ")


def terminal_width() -> int:
    """Columns to fill."""
    return min(_WIDEST, max(_NARROWEST, shutil.get_terminal_size().columns))


def headline(findings: Sequence[Finding]) -> str:
    """What it comes to, with the number of kinds of faults and of what they concern."""
    worst = max((f.severity for f in findings), default=Severity.NOTE)
    parts = []
    for severity in (Severity.ERROR, Severity.WARNING):
        kinds = list(_kinds(f for f in findings if f.severity == severity))
        cases = sum(f.count for kind in kinds for f in kind)
        more = f" ({cases:,} cases)" if cases > len(kinds) else ""
        parts.append(f"{_counted(len(kinds), severity.name.lower())}{more}")
    outcome = _OUTCOMES[worst]
    return f"{outcome[0].upper()}{outcome[1:]}: {', '.join(parts)}."


def report(findings: Sequence[Finding], width: int, *, every_example: bool = False, folder: str = "") -> str:
    """The headline, then every kind of fault, worst and most frequent first, then the notes.

    width: of a line.  every_example: shows all of them, one a line.
    folder: examples name files relative to it.
    """
    if folder:
        cut = f"{folder.rstrip('/')}/"
        findings = [replace(f, examples=[e.replace(cut, "") for e in f.examples]) for f in findings]
    kinds = sorted(_kinds(findings), key=lambda kind: (-kind[0].severity, -sum(f.count for f in kind)))
    blocks = [_block(kind, width, every_example) for kind in kinds if kind[0].severity > Severity.NOTE]
    notes = "\n".join(_block(kind, width, every_example) for kind in kinds if not kind[0].severity)
    return "\n\n".join([headline(findings), *blocks, *([notes] if notes else [])])


def in_singular(what: str) -> str:
    """`1 images are missing` as `1 image is missing`; other numbers stay as they are."""
    found = _ONE.match(what)
    if found is None:
        return what
    before, noun, after, verb = found.groups()
    rest = what[found.end() :].replace("their ", "its ").replace("and are ", "and is ")
    return f"1 {before}{_singular(noun)}{after} {_VERBS[verb]} {rest}"


def _singular(noun: str) -> str:
    return next((noun.removesuffix(e) + new for e, new in _NOUNS.items() if noun.endswith(e)), noun)


def _kinds(findings: Iterable[Finding]) -> Iterator[list[Finding]]:
    """The findings of the same kind and severity, the part of the data with most cases first."""
    groups: dict[tuple[Severity, str], list[Finding]] = {}
    for number, finding in enumerate(findings):
        groups.setdefault((finding.severity, finding.kind or f"{number}"), []).append(finding)
    for group in groups.values():
        yield sorted(group, key=lambda f: -f.count)


def _block(kind: Sequence[Finding], width: int, every_example: bool) -> str:
    first, several = kind[0], len(kind) > 1
    label = f"{first.severity.name:<8}"
    if several and first.examples:
        places = ", ".join(f"{f.where} {f.count:,}" for f in kind)
        what = first.kind.format(n=f"{sum(f.count for f in kind):,}")
        lines = [_wrapped(f"{places}: {what}", width, label)]
    else:
        places = ", ".join(f.where for f in kind)
        lines = [_wrapped(f"{places}: {in_singular(first.what)}", width, label)]
    lines[0] = colored(label, _COLOURS[first.severity], attrs=["bold"]) + lines[0][len(label) :]
    for finding in kind:
        lines += _examples(finding, width, every_example)
    lines += [_wrapped(remedy, width, f"{_INDENT}-> ") for remedy in _remedies(kind)]
    return "\n".join(lines)


def _examples(finding: Finding, width: int, every_example: bool) -> Iterator[str]:
    """Short ones fill lines, longer ones have a line each."""
    examples, indent = finding.examples, f"{_INDENT}  "
    room = width - len(indent)
    shown = len(examples) if every_example else min(_SHOWN, len(examples))
    if shown and not every_example and all(len(e) < room // 3 for e in examples[:_SHOWN]):
        line, shown = "", 0
        while shown < len(examples) and len(f"{line}{examples[shown]}") < _LINES * room - 20:
            line += f"{examples[shown].replace(' ', _UNBROKEN)}; "
            shown += 1
        left = len(examples) - shown
        line = f"{line}{left:,} more" if left else line.removesuffix("; ")
        yield _wrapped(line, width, indent).replace(_UNBROKEN, " ")
        return
    for example in examples[:shown]:
        yield _wrapped(example, width, indent)
    if shown < len(examples):
        yield f"{indent}{len(examples) - shown:,} more"


def _remedies(kind: Sequence[Finding]) -> list[str]:
    """One fix each; where parts of the data need another one, with the part's name."""
    remedies = {f.remedy: f.where for f in kind if f.remedy}
    return [f"{where}: {r}" for r, where in remedies.items()] if len(remedies) > 1 else list(remedies)


def _wrapped(text: str, width: int, start: str) -> str:
    """`start` and the text, further lines as far in as the text begins. Names stay whole."""
    return textwrap.fill(
        text,
        width,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _counted(count: int, noun: str) -> str:
    number = f"{count:,}" if count else "no"
    return f"{number} {noun}{'' if count == 1 else 's'}"
