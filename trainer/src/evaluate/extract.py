"""Cuts an answer down to its program, as EvalPlus 0.3.1 does; runs inside the sandbox and executes nothing of it.

`job.json` has `code` and `entry_point` (or null). Of all runs of at least two lines that parse as Python, the one
with the most lines that are not blank, the first of equals; the first line where none parses. Of that, the
imports and the definitions that the entry point reaches by name (all where there is none): functions with a
`return` in them, classes and assignments, the first of each name. What is decorated is none of these. Where
nothing is left, the run of lines as it is.

The answer is one line on stdout: the word that waits in stdin, then JSON.
"""

import ast
import io
import json
import keyword
import sys
import tokenize
import warnings


def parsed(text):
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def longest(text):
    lines = text.split("\n")
    filled = [0]
    for line in lines:
        filled.append(filled[-1] + bool(line.strip()))
    runs = [(i, j) for i in range(len(lines)) for j in range(i + 1, len(lines))]
    runs.sort(key=lambda run: filled[run[0]] - filled[run[1] + 1])
    for i, j in runs:
        run = "\n".join(lines[i : j + 1])
        # A run of blank lines is no longer than nothing.
        if filled[j + 1] > filled[i] and parsed(run) is not None:
            return run
    return lines[0]


def name_of(node):
    """What a statement defines, after the first name that stands in it by itself."""
    if not isinstance(node, (ast.Assign, ast.AnnAssign)):
        return node.name
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    if isinstance(targets[0], ast.Name):
        return targets[0].id
    alone = len(targets) == 1 and isinstance(node.value, ast.Name)
    return node.value.id if alone else None


def is_definition(node):
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return not node.decorator_list and any(isinstance(n, ast.Return) for n in ast.walk(node))
    if isinstance(node, ast.ClassDef):
        return not node.decorator_list
    return isinstance(node, (ast.Assign, ast.AnnAssign))


def names_in(node, text):
    """Every name that is written in it, of whatever."""
    found = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
            found.add(token.string)
    # Tokens of older Pythons do not reach into formatted strings.
    for part in ast.walk(node):
        for field in ("id", "attr", "arg"):
            name = getattr(part, field, None)
            if isinstance(name, str):
                found.add(name)
    return found


def reached(entry_point, names):
    seen, waiting = {entry_point}, [entry_point]
    while waiting:
        for name in names.get(waiting.pop(), ()):
            if name not in seen:
                seen.add(name)
                waiting.append(name)
    return seen


def extracted(code, entry_point):
    run = longest(code)
    tree = parsed(run)
    imports, definitions = [], {}
    for node in tree.body if tree else []:
        text = ast.get_source_segment(run, node)
        if isinstance(node, ast.Import):
            imports.append(text)
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            imports.append(text)
        elif is_definition(node):
            definitions.setdefault(name_of(node), (node, text))
    if entry_point:
        names = {name: names_in(*definition) for name, definition in definitions.items()}
        kept = reached(entry_point, names)
        definitions = {name: one for name, one in definitions.items() if name in kept}
    return "\n".join([*imports, *(text for _, text in definitions.values())]).strip() or run


def main():
    warnings.simplefilter("ignore")
    word = sys.stdin.read(64)
    with open("job.json", encoding="utf-8") as file:
        job = json.load(file)
    try:
        program = extracted(job["code"], job["entry_point"])
    except (RecursionError, tokenize.TokenError, SyntaxError):
        program = job["code"]
    print("\n" + word + json.dumps({"program": program}))


main()
