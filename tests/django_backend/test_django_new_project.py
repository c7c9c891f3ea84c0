"""A new project from nothing and back: migrate, a superuser, the admin over HTTP, no drift, and to zero."""

from __future__ import annotations

import contextlib
import http.cookiejar
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dsql_dialects

APPS = ("admin", "flatpages", "redirects", "sites", "sessions", "auth", "contenttypes")
START_TIMEOUT_S = 60.0
PASSWORD = "pw12345!x"

SETTINGS = """
from dsql_dialects.django import config
INSTALLED_APPS += ["django.contrib.sites", "django.contrib.flatpages", "django.contrib.redirects"]
SITE_ID = 1
DATABASES = {{"default": config({url!r}, CONN_MAX_AGE=None)}}
"""


class Project:
    """A project made by ``startproject``, with all of ``django.contrib`` that has tables."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        roots = [Path(dsql_dialects.__file__).parents[2] / folder for folder in ("dialects", "connectors", "server")]
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")},
            "PYTHONPATH": os.pathsep.join(map(str, roots)),
            "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
        }
        directory.mkdir()
        subprocess.run([sys.executable, "-m", "django", "startproject", "site_of_ours", str(directory)], check=True)
        with (directory / "site_of_ours" / "settings.py").open("a") as settings:
            settings.write(SETTINGS.format(url=url))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "manage.py", *arguments]

    def manage(self, *commands: tuple[str, ...]) -> str:
        """Run commands in one process, which saves most of their time; returns what they print."""
        calls = "\n".join(f"call_command(*{command!r})" for command in commands)
        done = subprocess.run(
            self.command("shell", "-c", f"from django.core.management import call_command\n{calls}"),
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{commands}: {done.stdout}{done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        """``runserver`` in a process of its own; gives its URL."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        command = self.command("runserver", "--noreload", "--insecure", address)
        with subprocess.Popen(
            command, cwd=self.directory, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                self._await(address, process)
                yield f"http://{address}"
            finally:
                process.terminate()

    def _await(self, address: str, process: subprocess.Popen[bytes]) -> None:
        host, _, port = address.partition(":")
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline_s:
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
                return
            time.sleep(0.1)
        raise AssertionError("runserver doesn't listen")


class Browser:
    """Keeps cookies and sends back the token against forged requests."""

    def __init__(self, root: str) -> None:
        self._root = root
        jar = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))

    def get(self, path: str) -> str:
        with self._opener.open(self._root + path) as response:
            text: str = response.read().decode()
            return text

    def post(self, path: str, **fields: Any) -> tuple[str, str]:
        """The address that it leads to, and the page there."""
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.get(path))
        assert token is not None, f"no form at {path}"
        body = urllib.parse.urlencode({"csrfmiddlewaretoken": token[1], **fields}).encode()
        with self._opener.open(self._root + path, body) as response:
            return response.url.removeprefix(self._root), response.read().decode()


@pytest.mark.long
def test_a_new_project(dsql_url: str, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", dsql_url)
    project.manage(
        ("migrate", "--noinput"),
        ("check", "--database", "default"),
        ("makemigrations", "--check", "--dry-run"),
        ("createsuperuser", "--noinput", "--username", "root", "--email", "root@example.com"),
    )
    with project.serving() as root:
        browser = Browser(root)
        where, _ = browser.post("/admin/login/?next=/admin/", username="root", password=PASSWORD)
        assert where == "/admin/"
        where, page = browser.post("/admin/sites/site/1/change/", domain="pizza.example", name="Pizza", _save="Save")
        assert (where, "pizza.example" in page) == ("/admin/sites/site/", True)
        where, page = browser.post("/admin/auth/group/add/", name="Bakers", _save="Save")
        assert (where, "Bakers" in page) == ("/admin/auth/group/", True)
    zero = [("migrate", app, "zero", "--noinput") for app in APPS]
    shown = project.manage(*zero, ("showmigrations",))
    assert "0001_initial" in shown
    assert "[X]" not in shown
