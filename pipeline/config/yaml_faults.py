"""Faults in the YAML of a config in plain words, at the line that has to be changed; what is evident is repaired."""

import re

import yaml

from pneumo.serving.contracts.yaml_text import SYNTAX_ERRORS, Fault, compose_yaml, explain_yaml_error, split_lines

_MAX_REPAIRS = 50
_TAB = re.compile(r" *\t[ \t]*(?=[^ \t#])")
_KEY = r"( *(?:- +)*)([A-Za-z_][\w.]*)"
_NO_SPACE, _NO_COLON = re.compile(_KEY + r":(?![\s:/]|$)(.+)"), re.compile(_KEY + r"(?: +([^\s:]+))? *(?:#.*)?")
_CONFLICT = re.compile(r"(<{7}|={7}|>{7})( |$)")


def compose_repaired(text: str) -> tuple[yaml.Node | None, list[Fault]]:
    """Parse YAML text into nodes, of which there are none if a fault has no evident repair, and return its faults."""
    faults: list[Fault] = []
    while len(faults) < _MAX_REPAIRS:
        try:
            return compose_yaml(text), faults
        except yaml.YAMLError as error:
            found = _find_evident_fault(error, text) if isinstance(error, SYNTAX_ERRORS) else None
            fault, repaired = found or (explain_yaml_error(error, text), None)
            if repaired is None:
                return None, faults or [fault]  # after a repair it may be a consequence
            faults.append(fault)
            text = repaired
    return None, faults


def _find_evident_fault(error: yaml.MarkedYAMLError, text: str) -> tuple[Fault, str | None] | None:
    """Return a fault whose repair is evident, and the repaired text if it is certain; None for any other."""
    rows, mark, began = split_lines(text), error.problem_mark, error.context_mark
    row, problem = min(mark.line if mark else 0, len(rows) - 1), str(error.problem)
    if _TAB.match(rows[row]):
        tabbed = [number for number, line in enumerate(rows) if _TAB.match(line)]
        more = f", as in {len(tabbed) - 1} more lines" if tabbed[1:] else ""
        widths = ("\n".join(_expand(line, width) for line in rows) for width in (2, 4, 8))
        return (tabbed[0] + 1, f"a tab in the indentation{more}; indent with spaces"), next(
            filter(_parses, widths), None
        )
    if conflicts := [number for number, line in enumerate(rows, 1) if _CONFLICT.match(line)]:
        return (conflicts[0], "a merge conflict; keep one side and delete its marks"), None
    if "mapping values are not allowed" not in problem and "could not find expected ':'" not in problem:
        return None
    above = [number for number in range(row) if rows[number].strip(" -")][-3:]
    for number in (began.line if began else row, *reversed(above)):
        line = rows[number]
        for pattern, what in ((_NO_SPACE, "a space is missing after the colon"), (_NO_COLON, "a colon is missing")):
            if found := pattern.fullmatch(line):
                fixed = f"{found[2]}: {found[3] or ''}".strip()
                repaired = [*rows[:number], found[1] + fixed, *rows[number + 1 :]]
                return (number + 1, f"{what}; write {fixed}"), "\n".join(repaired)
    return None


def _expand(line: str, width: int) -> str:
    return line.expandtabs(width) if _TAB.match(line) else line


def _parses(text: str) -> bool:
    try:
        return compose_yaml(text) is not None
    except yaml.YAMLError:
        return False
