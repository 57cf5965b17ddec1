"""Class names of a source: renamed as asked, and spellings that a person takes for one name made one."""

import difflib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace

from pneumo.pipeline.data.sources.items import Listing, clean_label
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.quantities import format_count


def settle_labels(listing: Listing, renames: Mapping[str, str]) -> Listing:
    """Rename classes, then merge those whose names differ only in case, white space or Unicode form.

    A merged class is called as a rename says, else by its most frequent name. A rename of no class is an `InputError`.
    """
    counts = Counter(item.label for item in listing.items)
    known = {clean_label(label) for label in counts}
    for old in renames:
        if old not in known:
            raise InputError(f"--rename {old}={renames[old]}: no class {old!r}; {_suggest(old, known)}")
    wanted = {label: renames.get(clean_label(label), clean_label(label) or label) for label in counts}
    spellings: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for label, name in wanted.items():
        spellings[name.casefold()][name] += counts[label]
    targets = set(renames.values())
    final = {
        fold: max(names, key=lambda name: (name in targets, names[name], name)) for fold, names in spellings.items()
    }
    new = {label: final[name.casefold()] for label, name in wanted.items()}
    notes = [
        f"the class {label!r} ({format_count(counts[label], 'image')}) counts as {name!r}"
        for label, name in sorted(new.items())
        if label != name
    ]
    items = tuple(replace(item, label=new[item.label]) for item in listing.items)
    return replace(listing, items=items, notes=(*notes, *listing.notes))


def _suggest(old: str, known: Collection[str]) -> str:
    folded = {name.casefold(): name for name in sorted(known)}
    near = difflib.get_close_matches(old.casefold(), folded, n=3, cutoff=0.5) or sorted(folded)[:10]
    return "there are " + ", ".join(repr(folded[name]) for name in near)
