"""The web server of the page: this machine alone can reach it, and it sends nothing anywhere."""

from __future__ import annotations

import errno
import socket
from typing import Any

from ..errors import UserError
from .page import import_gradio, style

HOST = "127.0.0.1"


def bind(port: int) -> socket.socket:
    """Returns a socket that holds a port of this machine, reachable from this machine alone.

    Args:
        port: 0 takes any that is free.

    Raises:
        UserError: there is no such port, somebody else has it, or it is not for ordinary users.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port is {port}; choose a number from 1024 to 65535")
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that has just ended is no hindrance
    try:
        held.bind((HOST, port))
        held.listen(128)
    except OSError as error:
        held.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is taken by another program; choose another with --port") from None
        raise UserError(f"port {port} cannot be used: {error.strerror}; choose another with --port") from None
    return held


def make_server(page: Any) -> Any:
    """Returns a `uvicorn.Server` of the page; its `run(sockets=[bind(port)])` returns after Ctrl-C."""
    gr = import_gradio()
    import fastapi
    import uvicorn
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = fastapi.FastAPI(openapi_url=None)
    # A page of another site whose name leads here (DNS rebinding) is turned away by the name it asks for.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    font = ("system-ui", "sans-serif")  # the browser's own: nothing to load
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        server_name=HOST,
        footer_links=[],
        show_error=True,
        max_file_size=1,  # bytes: the page takes no files
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gr.themes.Default(font=font, font_mono=("ui-monospace", "monospace")),
        css=style(),
    )
    return uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
