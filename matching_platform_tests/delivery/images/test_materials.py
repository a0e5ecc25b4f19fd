import json

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from matching_platform.delivery.images import materials
from matching_platform.delivery.images.image import Image, ImageError

IMAGE = Image("host:5000/a/service", "20240131235959-m", f"sha256:{'a' * 64}", 1, "m", "b" * 64, "base")
DPKG = b"""Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u10
Description: GNU C Library
 Over two lines.

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: tzdata
Status: install ok installed
Architecture: all
Version: 2024a-0+deb12u1
"""
DPKG_LICENCES = b"""/usr/share/doc/libc6/copyright:License: LGPL-2.1+
/usr/share/doc/libc6/copyright:License: GPL-2
/usr/share/doc/libc6/copyright:License: GPL-2
/usr/share/doc/libc6/copyright:License:
"""


def python(*packages: list[tuple[str, str]]) -> bytes:
    return json.dumps({"python": "3.11.2", "packages": packages}).encode()


def package(name: str, *lines: tuple[str, str]) -> list[tuple[str, str]]:
    return [("Name", name), ("Version", "1.0"), *lines]


def sources(told: bytes) -> dict[str, bytes]:
    return dict(zip(materials.SOURCES, (DPKG, DPKG_LICENCES, told), strict=True))


def licences(component: dict[str, object]) -> list[str]:
    """Names, identifiers or expressions, as they are."""
    return sorted(
        str(one.get("expression") or one["license"].get("id") or one["license"]["name"])
        for one in component.get("licenses", [])  # type: ignore[attr-defined]
    )


def test_packages_of_debian_and_python_are_named_as_the_schema_wants() -> None:
    made = materials.bill(IMAGE, sources(python(package("torch", ("License", "BSD-3-Clause")))))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(made)) is None
    assert made["metadata"]["component"]["version"] == IMAGE.tag
    parts = {part["purl"]: licences(part) for part in made["components"]}
    assert parts == {
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64": ["GPL-2", "LGPL-2.1+"],
        "pkg:deb/debian/tzdata@2024a-0%2Bdeb12u1?arch=all": [],
        "pkg:generic/python@3.11.2": ["PSF-2.0"],
        "pkg:pypi/torch@1.0": ["BSD-3-Clause"],
    }


def test_the_same_image_has_the_same_bill() -> None:
    one, other = (materials.bill(IMAGE, sources(python(package("torch")))) for _ in range(2))
    assert one == other


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([("License-Expression", "Apache-2.0 OR MIT"), ("License", "see file")], ["Apache-2.0 OR MIT"]),
        ([("License", "MIT")], ["MIT"]),
        ([("License", "Our own licence")], ["Our own licence"]),
        ([("License", "line\n" * 50), ("Classifier", "License :: OSI Approved :: MIT License")], ["MIT License"]),
        (
            [("Classifier", "License :: OSI Approved :: A"), ("Classifier", "License :: B"), ("Classifier", "Typed")],
            ["A", "B"],
        ),
        ([("License", "UNKNOWN, and more " * 9)], []),
        ([], []),
    ],
)
def test_a_package_s_licence_is_what_its_surest_field_says(lines: list[tuple[str, str]], expected: list[str]) -> None:
    made = materials.bill(IMAGE, sources(python(package("one", *lines))))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(made)) is None
    (one,) = (part for part in made["components"] if part["name"] == "one")
    assert licences(one) == expected


def test_a_package_that_is_there_twice_is_named_once() -> None:
    made = materials.bill(IMAGE, sources(python(package("one"), package("one"))))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(made)) is None
    assert [part["name"] for part in made["components"]].count("one") == 1


@pytest.mark.parametrize("told", [b"", b"{}", b'{"python": "3", "packages": [[["Name", "nameless"]]]}'])
def test_a_broken_note_of_the_build_is_told(told: bytes) -> None:
    with pytest.raises(ImageError, match="does not say what it is made of"):
        materials.bill(IMAGE, sources(told))


def test_a_broken_list_of_debian_s_is_told() -> None:
    given = sources(python()) | {materials.SOURCES[0]: b"Package: one\nStatus: install ok installed\n"}
    with pytest.raises(ImageError, match="does not say what it is made of"):
        materials.bill(IMAGE, given)
