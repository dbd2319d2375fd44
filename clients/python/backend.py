"""Builds the package: a PEP 517 backend of the standard library.

A wheel is a zip of the package and three files about it (the binary
distribution format of the Python packaging user guide).
"""

import base64
import hashlib
import io
import os
import re
import tarfile
import zipfile

_HERE = os.path.dirname(os.path.abspath(__file__))


def _read(name):
    with open(os.path.join(_HERE, name), encoding="utf-8") as f:
        return f.read()


def _field(name):
    return re.search(rf'^{name} = "(.*)"$', _read("pyproject.toml"), re.M).group(1)


_VERSION = _field("version")
_NAME = "kaizen_audit-" + _VERSION


def _metadata():
    return (
        "Metadata-Version: 2.1\n"
        f"Name: kaizen-audit\nVersion: {_VERSION}\nSummary: {_field('description')}\n"
        f"Requires-Python: {_field('requires-python')}\nLicense: Apache-2.0\n"
        "Description-Content-Type: text/markdown\n\n" + _read("README.md")
    )


def _package():
    folder = os.path.join(_HERE, "kaizen_audit")
    return ["kaizen_audit/" + n for n in sorted(os.listdir(folder)) if n.endswith((".py", ".typed"))]


def _wheel(directory, files):
    info = f"{_NAME}.dist-info/"
    files[info + "METADATA"] = _metadata()
    files[info + "WHEEL"] = (
        "Wheel-Version: 1.0\nGenerator: kaizen-audit\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    record = ""
    name = f"{_NAME}-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w", zipfile.ZIP_DEFLATED) as z:
        for path, text in files.items():
            data = text.encode("utf-8")
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record += f"{path},sha256={digest},{len(data)}\n"
            # One date, so that the same source gives the same wheel.
            z.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), data)
        z.writestr(zipfile.ZipInfo(info + "RECORD", (2020, 1, 1, 0, 0, 0)), f"{record}{info}RECORD,,\n")
    return name


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    return _wheel(wheel_directory, {name: _read(name) for name in _package()})


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return _wheel(wheel_directory, {"kaizen_audit.pth": _HERE + "\n"})


def build_sdist(sdist_directory, config_settings=None):
    name = f"{_NAME}.tar.gz"
    with tarfile.open(os.path.join(sdist_directory, name), "w:gz") as tar:
        for path in [*_package(), "pyproject.toml", "backend.py", "README.md"]:
            tar.add(os.path.join(_HERE, path), f"{_NAME}/{path}")
        data = _metadata().encode("utf-8")
        entry = tarfile.TarInfo(f"{_NAME}/PKG-INFO")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return name
