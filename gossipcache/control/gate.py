"""Who may use the control API over TCP: token, Host and Origin (against DNS rebinding)."""

from __future__ import annotations

import hmac

from gossipcache.control.http import Request
from gossipcache.errors import NotPermitted
from gossipcache.ids import Address


class TokenGate:
    """Checks requests that came over TCP at `address`."""

    def __init__(self, token: str, address: Address) -> None:
        self._token = token.encode()
        names = (
            {address.host, "localhost", "127.0.0.1", "::1"}
            if address.is_loopback
            else {address.host}
        )
        self._hosts = {str(Address(name, address.port)) for name in names}

    def check(self, request: Request) -> None:
        """Raises `NotPermitted` unless the request may be served."""
        if request.headers.get("host", "").lower() not in self._hosts:
            raise NotPermitted(
                "the request's Host is not this node", "use the address of `node status`"
            )
        origin = request.headers.get("origin")
        if origin is not None and origin.lower().removeprefix("http://") not in self._hosts:
            raise NotPermitted("a page of another site sent this request", "open the node's own")
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode(), self._token)
        if request.path != ("health",) and not (scheme.lower() == "bearer" and right):
            raise NotPermitted(
                "the request carries no valid token",
                "send `Authorization: Bearer TOKEN`; the token is in HOME/http.token",
            )
