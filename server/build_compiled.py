"""Builds the optional extension module when the distribution is built or installed.

Without a C compiler, or with ``DSQLKIT_PURE_PYTHON=1`` in the environment, everything is installed but the extension:
the server then runs in Python only, slower and with the same results (``dsql_server.compiled``).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_MODULE = "dsql_server.compiled._native"
_PURE_PYTHON_VARIABLE = "DSQLKIT_PURE_PYTHON"


class CompiledHook(BuildHookInterface):  # type: ignore[misc, type-arg, unused-ignore]
    """See the module."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """``version`` is the kind of wheel: ``editable`` gets the extension beside its source."""
        if self.target_name != "wheel" or os.environ.get(_PURE_PYTHON_VARIABLE, "") not in ("", "0"):
            return
        source = Path(self.root, "server", *_MODULE.split(".")).with_suffix(".pyx")
        self._scratch = tempfile.mkdtemp(prefix="dsqlkit-build-")
        try:
            built = _build(source, Path(self._scratch))
        # Whatever is missing (a compiler, Python's headers …), the rest works without.
        except (Exception, SystemExit) as error:
            self.app.display_warning(f"dsqlkit: installed without its compiled part, in Python only: {error}")
            return
        if version == "editable":
            shutil.copy(built, source.parent / built.name)
        else:
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
            build_data["force_include"][str(built)] = "/".join([*_MODULE.split(".")[:-1], built.name])

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        shutil.rmtree(getattr(self, "_scratch", ""), ignore_errors=True)


def _build(source: Path, scratch: Path) -> Path:
    """Compile ``source`` below ``scratch``; the path of the extension module."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    copy = scratch / source.name
    shutil.copy(source, copy)
    extension = Extension(_MODULE, [str(copy)], extra_compile_args=[] if os.name == "nt" else ["-O2"])
    modules = cythonize([extension], build_dir=str(scratch), quiet=True, language_level=3)
    command = build_ext(Distribution({"ext_modules": modules}))
    command.build_lib = str(scratch / "lib")
    command.build_temp = str(scratch / "temp")
    command.ensure_finalized()
    command.run()
    return Path(command.get_ext_fullpath(_MODULE))
