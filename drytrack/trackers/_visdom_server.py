"""A Visdom server for this machine alone: a program of its own, ended from outside.

Visdom's own command fetches the scripts of its page before it serves anything, and
ends where there is no network. Here that has a time limit and may fail: windows are
taken, and can be read, all the same.
"""

from __future__ import annotations

import contextlib
import importlib
import pathlib
import secrets
import sys
import threading
from typing import Any

from drytrack.trackers._local_server import HOST, serve

FETCH_TIMEOUT_S = 20.0
MAX_REQUEST_BYTES = 2**30


def has_scripts() -> bool:
    """Return whether the scripts of Visdom's page are there."""
    home = pathlib.Path(importlib.import_module("visdom").__file__ or "").parent
    return (home / "static" / "js" / "react-react.min.js").exists()


def serve_visdom(
    folder: pathlib.Path, port: int
) -> contextlib.AbstractContextManager[str]:
    """Run a server as a process of its own; see `drytrack.trackers._local_server`.

    Args:
        folder: Where what is saved is kept.
        port: Where to serve; the next free port is taken where it is in use.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mark = f"drytrack-{secrets.token_hex(8)}"
    return serve(
        __name__, lambda found: [str(found), str(folder), mark], port, mark=mark
    )


def main(port: int, folder: str, mark: str) -> None:
    """Serve until the process is ended.

    Args:
        port: Where to serve.
        folder: Where what is saved is kept.
        mark: What is answered at the path of this name.
    """
    netutil = importlib.import_module("tornado.netutil")
    sockets = netutil.bind_sockets(port, address=HOST)
    fetching = threading.Thread(target=_fetch_scripts, daemon=True)
    fetching.start()
    fetching.join(FETCH_TIMEOUT_S)
    application = importlib.import_module("visdom.server.app")
    application.tornado_settings.update(
        # It would start itself anew when a module's file is written.
        autoreload=False,
        static_handler_class=_make_file_handler(),
    )
    served = application.Application(port=port, env_path=folder)
    served.add_handlers(".*", [(f"/{mark}", _make_mark_handler(mark))])
    httpserver = importlib.import_module("tornado.httpserver")
    server = httpserver.HTTPServer(served, max_buffer_size=MAX_REQUEST_BYTES)
    server.add_sockets(sockets)
    importlib.import_module("tornado.ioloop").IOLoop.current().start()


def _make_mark_handler(mark: str) -> Any:
    web: Any = importlib.import_module("tornado.web")

    class MarkHandler(web.RequestHandler):  # type: ignore[misc]  # untyped base
        def get(self) -> None:
            self.write(mark)

    return MarkHandler


def _make_file_handler() -> Any:
    web: Any = importlib.import_module("tornado.web")

    class FileHandler(web.StaticFileHandler):  # type: ignore[misc]  # untyped base
        """Names ``../user/style.css`` to the page, which tornado 6.6 refuses."""

        @classmethod
        def get_version(cls, settings: Any, path: str) -> str | None:
            try:
                version: str | None = super().get_version(settings, path)
            except web.HTTPError:
                version = None
            return version

    return FileHandler


def _fetch_scripts() -> None:
    # The page stays empty then; who starts the server says so.
    with contextlib.suppress(Exception):  # no network, or no folder of ours
        importlib.import_module("visdom.server.build").download_scripts()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
