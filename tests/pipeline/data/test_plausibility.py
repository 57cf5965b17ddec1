from pneumo.pipeline.data.manifest import Split
from pneumo.pipeline.data.plausibility import find_alike_patients, find_rare_classes


def images(counts: dict[tuple[Split, str], int]) -> list[tuple[Split | None, str, str]]:
    return [(split, label, f"{split}{label}{i}") for (split, label), count in counts.items() for i in range(count)]


def test_a_class_that_is_nearly_absent_from_a_split_is_named() -> None:
    told = find_rare_classes(
        images({(Split.TRAIN, "A"): 70, (Split.TRAIN, "B"): 70, (Split.TEST, "A"): 30, (Split.TEST, "B"): 1})
    )
    assert told == ["class 'B' is nearly absent from the test split: 1 of 31 images; its metrics there mean little"]


def test_a_class_far_below_its_usual_share_is_named_though_it_has_many_images() -> None:
    counts = {(Split.TRAIN, "A"): 500, (Split.TRAIN, "B"): 500, (Split.TEST, "A"): 200, (Split.TEST, "B"): 10}
    assert ["'B'" in text for text in find_rare_classes(images(counts))] == [True]


def test_balanced_and_small_splits_are_not_named() -> None:
    assert not find_rare_classes(images({(split, label): 2 for split in Split for label in "AB"}))
    assert not find_rare_classes(images({(split, label): 20 for split in Split for label in "ABC"}))
    assert not find_rare_classes(images({(Split.TRAIN, "A"): 50, (Split.TRAIN, "B"): 50, (Split.TEST, "A"): 20}))
    assert not find_rare_classes([(None, "A", "p"), (None, "B", "q")])
    assert not find_rare_classes([])


def test_patients_that_are_all_alike_are_named() -> None:
    assert "one patient has 9 of 10" in find_alike_patients([(None, "A", "p")] * 9 + [(None, "B", "q")])[0]
    by_class = [(None, label, f"patient of {label}") for label in "AAABBBCCC"]
    assert "the 3 patients are the 3 classes" in find_alike_patients(by_class)[0]
    assert not find_alike_patients([(None, "AB"[i % 2], f"p{i // 2}") for i in range(20)])
    assert not find_alike_patients([(None, "A", "p"), (None, "B", "q")])
    assert not find_alike_patients([])
