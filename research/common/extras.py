"""Name the optional extra of this package that installs a missing module."""

from __future__ import annotations

from importlib import metadata

from packaging.requirements import Requirement


def advice(error: ModuleNotFoundError) -> str | None:
    """One sentence that says how to install the missing module; None where no extra of `research` has it.

    Extras are read from the metadata of the installed package: what `pyproject.toml` says.
    """
    module = (error.name or "").partition(".")[0]
    package = module.replace("_", "-").lower()
    for line in metadata.requires("research") or []:
        requirement = Requirement(line)
        if requirement.name.lower() == package and requirement.marker is not None:
            extra = next((name for name in _extras() if requirement.marker.evaluate({"extra": name})), None)
            if extra is not None:
                return f"{module} is not installed; it comes with the extra [{extra}]: pip install 'research[{extra}]'."
    return None


def _extras() -> list[str]:
    return metadata.metadata("research").get_all("Provides-Extra") or []
