"""An image's bill of materials: the packages of Debian and of Python in it, as CycloneDX has them."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from email.parser import HeaderParser
from typing import Any, Final
from uuid import UUID, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.exception import CycloneDxException
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from pydantic import BaseModel

from matching_platform.delivery.images.image import Image, ImageError

# What the image's description (bento/Dockerfile.template) leaves for us, whoever builds it.
_STATUS: Final = "/usr/share/materials/dpkg-status"
_LICENCES: Final = "/usr/share/materials/dpkg-licenses"
_PYTHON: Final = "/usr/share/materials/python.json"
SOURCES: Final = (_STATUS, _LICENCES, _PYTHON)

# Longer ones are the licence's text, and not its name.
_NAME_LENGTH: Final = 80
_NAMESPACE: Final = UUID("3b8f5a52-6f0c-4d5e-9a37-5f2f0f3f9d41")


class _Python(BaseModel):
    """The interpreter's version, and the lines of each package's metadata."""

    python: str
    packages: list[list[tuple[str, str]]]


def bill(image: Image, sources: Mapping[str, bytes]) -> dict[str, Any]:
    """The bill of materials (CycloneDX 1.6, JSON) of `image`, of the files SOURCES in it; ImageError where one is broken.

    The same image has the same bill.
    """
    name = image.repository.rpartition("/")[2]
    value = image.digest.removeprefix("sha256:")
    described = Component(
        name=name,
        version=image.tag,
        type=ComponentType.CONTAINER,
        purl=PackageURL("oci", None, name, image.digest, {"repository_url": image.repository, "tag": image.tag}),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=value)],
        bom_ref=image.digest,
    )
    try:
        parts = [*_of_debian(sources[_STATUS], sources[_LICENCES]), *_of_python(sources[_PYTHON])]
        bom = Bom(components=parts, serial_number=uuid5(_NAMESPACE, image.digest))
        bom.metadata.component = described
        bom.register_dependency(described, parts)
        made: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    except (CycloneDxException, KeyError, ValueError) as error:
        raise ImageError(f"{image.reference} does not say what it is made of ({error}); build it again") from error
    # When the bill was read is nothing of the image's.
    del made["metadata"]["timestamp"]
    return made


def _of_debian(status: bytes, licences: bytes) -> Iterator[Component]:
    named = defaultdict(set)
    for line in licences.decode(errors="replace").splitlines():
        path, _, licence = line.partition(":License:")
        named[path.split("/")[-2]].add(licence.strip())
    for paragraph in status.decode(errors="replace").strip().split("\n\n"):
        package = dict(HeaderParser().parsestr(paragraph).items())
        if package.get("Status") == "install ok installed":
            name, version, architecture = package["Package"], package["Version"], package["Architecture"]
            purl = PackageURL("deb", "debian", name, version, {"arch": architecture})
            yield _component(name, version, purl, named[name])


def _of_python(told: bytes) -> Iterator[Component]:
    python = _Python.model_validate_json(told)
    yield _component("python", python.python, PackageURL("generic", None, "python", python.python), ["PSF-2.0"])
    for lines in python.packages:
        fields = dict(lines)
        purl = PackageURL("pypi", None, fields["Name"], fields["Version"])
        yield _component(fields["Name"], fields["Version"], purl, _licences(lines))


def _licences(lines: list[tuple[str, str]]) -> list[str]:
    """Names of a Python package's licence, of the surest field that has one."""
    fields = dict(lines)
    if expression := fields.get("License-Expression"):
        return [expression]
    classified = [
        value.rpartition(" :: ")[2] for name, value in lines if name == "Classifier" and "License ::" in value
    ]
    licence = fields.get("License", "").strip()
    return [licence] if licence and len(licence) <= _NAME_LENGTH and "\n" not in licence else classified


def _component(name: str, version: str, purl: PackageURL, licences: Iterable[str]) -> Component:
    known = sorted({name for name in licences if name})
    return Component(
        name=name,
        version=version,
        purl=purl,
        type=ComponentType.LIBRARY,
        bom_ref=purl.to_string(),
        licenses=[_licence(one, alone=len(known) == 1) for one in known],
    )


def _licence(name: str, *, alone: bool) -> License:
    """A licence by its SPDX name where it has one; an expression has to stand alone."""
    return LicenseFactory().make_from_string(name) if alone else LicenseFactory().make_with_name(name)
