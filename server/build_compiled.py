"""Builds the optional extension modules when the distribution is built or installed.

Without a C compiler, or with ``DSQLKIT_PURE_PYTHON=1`` in the environment, everything is installed but those:
the server then runs in Python only, slower and with the same results (``dsql_server.compiled``).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_PACKAGE = "dsql_server.compiled"
_PURE_PYTHON_VARIABLE = "DSQLKIT_PURE_PYTHON"


class CompiledHook(BuildHookInterface):  # type: ignore[misc, type-arg, unused-ignore]
    """See the module."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """``version`` is the kind of wheel: ``editable`` gets the extensions beside their source."""
        if self.target_name != "wheel" or os.environ.get(_PURE_PYTHON_VARIABLE, "") not in ("", "0"):
            return
        package = Path(self.root, "server", *_PACKAGE.split("."))
        self._scratch = tempfile.mkdtemp(prefix="dsqlkit-build-")
        try:
            built = _build(package, Path(self._scratch))
        # Whatever is missing (a compiler, Python's headers …), the rest works without.
        except (Exception, SystemExit) as error:
            self.app.display_warning(f"dsqlkit: installed without its compiled part, in Python only: {error}")
            return
        for module in built:
            if version == "editable":
                shutil.copy(module, package / module.name)
            else:
                build_data["pure_python"] = False
                build_data["infer_tag"] = True
                build_data["force_include"][str(module)] = "/".join([*_PACKAGE.split("."), module.name])

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        shutil.rmtree(getattr(self, "_scratch", ""), ignore_errors=True)


def _build(package: Path, scratch: Path) -> list[Path]:
    """Compile what is in ``package`` below ``scratch``; the paths of the extension modules."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    for source in package.glob("*.px[di]"):
        shutil.copy(source, scratch)
    flags = [] if os.name == "nt" else ["-O2"]
    extensions = []
    for source in sorted(package.glob("*.pyx")):
        shutil.copy(source, scratch)
        name = f"{_PACKAGE}.{source.stem}"
        extensions.append(Extension(name, [str(scratch / source.name)], extra_compile_args=flags))
    modules = cythonize(extensions, build_dir=str(scratch), quiet=True, language_level=3)
    command = build_ext(Distribution({"ext_modules": modules}))
    command.build_lib = str(scratch / "lib")
    command.build_temp = str(scratch / "temp")
    command.ensure_finalized()
    command.run()
    return [Path(command.get_ext_fullpath(extension.name)) for extension in extensions]
