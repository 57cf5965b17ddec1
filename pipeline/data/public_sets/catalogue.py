"""The public data sets that `pneumo data fetch` knows.

Addresses and digests come from public sources, not from a download of this project. The package medmnist has the digest
of PneumoniaMNIST. Several public projects that downloaded Kermany's archive give the same digest of it.
"""

from dataclasses import dataclass

from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.population import Population


@dataclass(frozen=True)
class PublicSet:
    """A file that can be downloaded.

    Attributes:
        file: Its file name, which is also appended to the address of a mirror (`--from`).
        size: Its length in bytes, None if unknown.
        algorithm: Algorithm of the digest: `md5`, `sha256`.
        next: The command that imports it.
        population: Its population, as its authors state it.
    """

    name: str
    title: str
    address: str
    file: str
    size: int | None
    algorithm: str
    digest: str
    licence: str
    page: str
    citation: str
    next: str
    population: Population


_KERMANY = Population(
    ages=(1, 5),
    views=["AP"],
    sites=["Guangzhou Women and Children's Medical Center"],
    reference_standard="two physicians graded each image, a third checked those for evaluation (Kermany et al., 2018)",
)

SETS = {
    each.name: each
    for each in (
        PublicSet(
            name="kermany",
            title="5,856 paediatric chest X-rays, normal and pneumonia",
            # version 2 has the X-rays as an archive of their own; version 3 packs the same ones with 7 GB of retinas
            address="https://data.mendeley.com/public-files/datasets/rscbjbr9sj/files/"
            "f12eaf6d-6023-432f-acc9-80c9d7393433/file_downloaded",
            file="ChestXRay2017.zip",
            size=1_235_512_464,
            algorithm="sha256",
            digest="13efc055629733dbab07877f8b3c9f81097840dbcdaa326a8542322c2281ce36",
            licence="CC BY 4.0",
            page="https://data.mendeley.com/datasets/rscbjbr9sj/2",
            citation="Kermany, Zhang, Goldbaum: Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images for "
            "Classification. Mendeley Data, V2, 2018. doi:10.17632/rscbjbr9sj.2",
            next="pneumo data import {path}",
            population=_KERMANY,
        ),
        PublicSet(
            name="pneumoniamnist",
            title="the same X-rays at 28 x 28 pixels, from MedMNIST v2",
            address="https://zenodo.org/records/10519652/files/pneumoniamnist.npz?download=1",
            file="pneumoniamnist.npz",
            size=None,
            algorithm="md5",
            digest="28209eda62fecd6e6a2d98b1501bb15f",
            licence="CC BY 4.0",
            page="https://zenodo.org/records/10519652",
            citation="Yang et al.: MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image "
            "classification. Scientific Data 10:41, 2023. doi:10.1038/s41597-022-01721-8",
            next="pneumo data import {path} --size 28 --split given",
            population=_KERMANY,
        ),
    )
}


def find_public_set(name: str) -> PublicSet:
    """Return the set with a name.

    Raises:
        InputError: There is none.
    """
    if name not in SETS:
        raise InputError(f"{name}: no such public data set; choose {' or '.join(SETS)}")
    return SETS[name]
