"""Writes schedules.json: values of schedules, by an implementation that shares nothing with the Rust one.

Follows docs/curriculum.md in plain Python (no packages). Run it only to extend the cases:
`python3 schedules.py > schedules.json`. Values are given as the 64 bits of a double.
"""

import json
import random
import struct

SINE = [
    1.5707963267948966,
    -0.6459640975062463,
    0.07969262624616705,
    -0.004681754135318688,
    0.00016044118478735983,
    -3.598843235212085e-06,
    5.692172921967927e-08,
    -6.688035109811468e-10,
    6.0669357311061955e-12,
]


def half_cosine(t):
    if t > 0.5:
        return 1.0 - half_cosine(1.0 - t)
    z, p = t * t, SINE[8]
    for coefficient in reversed(SINE[:8]):
        p = p * z + coefficient
    s = p * t
    return s * s


def between(start, end, t):
    return start + (end - start) * t


def value(schedule, step, total, epoch):
    if not isinstance(schedule, dict):
        return schedule
    ((shape, of),) = schedule.items()
    if shape in ("linear", "cosine"):
        if step >= of["steps"]:
            return of["to"]
        t = step / of["steps"]
        return between(of["from"], of["to"], half_cosine(t) if shape == "cosine" else t)
    if shape == "piecewise":
        before = [point for point in of if point[0] <= step]
        after = [point for point in of if point[0] > step]
        if not before or not after:
            return (before[-1:] or after[:1])[0][1]
        (s, v), (e, w) = before[-1], after[0]
        return between(v, w, (step - s) / (e - s))
    if shape == "epochs":
        return of[min(epoch, len(of) - 1)]
    if shape == "epoch_cycle":
        return of[epoch % len(of)]
    return of[min(step * len(of) // total, len(of) - 1)]


def main():
    draw = random.Random(5)
    share = lambda: round(draw.random(), 3)
    cases = []
    for number in range(120):
        total = draw.randrange(1, 5000)
        shape = ["constant", "linear", "cosine", "cosine", "piecewise", "piecewise", "epochs", "epoch_cycle", "phases"]
        shape = shape[number % len(shape)]
        if shape == "constant":
            schedule = share()
        elif shape in ("linear", "cosine"):
            schedule = {shape: {"from": share(), "to": share(), "steps": draw.randrange(0, 4000)}}
        elif shape == "piecewise":
            steps = sorted(draw.sample(range(5000), draw.randrange(1, 6)))
            schedule = {shape: [[step, share()] for step in steps]}
        else:
            schedule = {shape: [share() for _ in range(draw.randrange(1, 6))]}
        step, epoch = draw.randrange(total), draw.randrange(8)
        bits = struct.unpack("<Q", struct.pack("<d", value(schedule, step, total, epoch)))[0]
        cases.append({"schedule": schedule, "step": step, "total_steps": total, "epoch": epoch, "bits": bits})
    print("[\n" + ",\n".join(map(json.dumps, cases)) + "\n]")


main()
