"""The short suite: of every test the fewest cases with each value of each parameter, and each type on each backend."""

import torch


def _facts(item):
    """What a case shows: its values, and its type on its backend; of what torch.compile takes seconds for, one case."""
    values = getattr(item, "callspec", None) and item.callspec.params
    if not values or "no_graphs" in item.fixturenames:
        return {None}
    backend = values.get("variant", values.get("backend"))
    parts = [part for value in values.values() for part in (value if isinstance(value, tuple) else (value,))]
    dtypes = {(backend, part) for part in parts if isinstance(part, torch.dtype)}
    return {(name, id(value)) for name, value in values.items()} | dtypes


def _fewest(items):
    """One case after the other, always the first of those that show most of what is missing."""
    facts = [_facts(item) for item in items]
    missing, chosen = set().union(*facts), []
    while missing:
        best = max(range(len(items)), key=lambda index: len(facts[index] & missing))
        chosen.append(best)
        missing -= facts[best]
    return [items[index] for index in sorted(chosen)]


def short(items):
    """Of the collected tests, those of the short suite, in their order. The whole has those marked `slow` too."""
    tests = {}
    for item in items:
        if not item.get_closest_marker("slow"):
            tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    chosen = {item for cases in tests.values() for item in _fewest(cases)}
    return [item for item in items if item in chosen]
