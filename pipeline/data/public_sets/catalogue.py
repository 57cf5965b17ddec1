"""The public data sets that `pneumo data fetch` knows.

Addresses and digests were taken from public sources, not from a download made here: that of PneumoniaMNIST stands in
the package medmnist, that of Kermany's archive is given alike by several public projects that downloaded it.
"""

from dataclasses import dataclass

from pneumo.serving.contracts.errors import InputError


@dataclass(frozen=True)
class PublicSet:
    """A file that can be downloaded.

    Attributes:
        name: What it is asked for by.
        title: What it is.
        address: Where it is downloaded from.
        file: The name it gets, which `--from` appends to a mirror's address too.
        size: Its length in bytes, or None where nobody says.
        algorithm: Of the digest: `md5`, `sha256`.
        digest: Of its content, hexadecimal.
        licence: Under which terms.
        page: Where people read about it.
        citation: What to cite.
        next: The command that imports it.
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
        ),
    )
}


def find_public_set(name: str) -> PublicSet:
    """The set of a name.

    Raises:
        InputError: There is none.
    """
    try:
        return SETS[name]
    except KeyError:
        raise InputError(f"{name}: no such public data set; there are {', '.join(SETS)}") from None
