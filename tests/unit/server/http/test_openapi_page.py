"""The document describes every body, and the page is one file that only runs what is its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from phi4.server.http.app import BODIES

Serve = Callable[..., Any]


def references(value: Any) -> set[str]:
    """Every `$ref` in a document."""
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(inner) for inner in value.values()))
    return set().union(*(references(inner) for inner in value)) if isinstance(value, list) else set()


def test_document_describes_every_route_and_body(serve: Serve) -> None:
    serving = serve()
    document = serving.get("/openapi.json").json()
    routes = {route.path for route in serving.app.routes} - {"/openapi.json", "/"}
    assert set(document["paths"]) == {path.replace(":path", "") for path in routes}
    posts = {path: found["post"] for path, found in document["paths"].items() if "post" in found}
    without = [path for path, operation in posts.items() if "requestBody" not in operation]
    assert len(posts) == 7 and without == ["/v1/responses/{response_id}/cancel"]
    assert {model.__name__ for model in BODIES} <= set(document["components"]["schemas"])


def test_every_reference_of_the_document_leads_somewhere(serve: Serve) -> None:
    document = serve().get("/openapi.json").json()
    found = references(document)
    assert found
    for reference in found:
        assert reference.startswith("#/components/schemas/")
        assert reference.rpartition("/")[2] in document["components"]["schemas"], reference


def test_document_names_every_status_an_error_can_have(serve: Serve) -> None:
    document = serve().get("/openapi.json").json()
    told = set(document["paths"]["/v1/chat/completions"]["post"]["responses"])
    assert {"200", "400", "401", "404", "408", "413", "415", "421", "429", "431", "500", "503", "504"} <= told


def test_page_is_there_for_this_machine_only(serve: Serve) -> None:
    assert serve().get("/").status == 200
    assert serve(page=False).get("/").status == 404
    assert serve(host="0.0.0.0", open_to_all=True).get("/").status == 404


def test_page_runs_its_own_script_and_nothing_else(serve: Serve) -> None:
    answered = serve().get("/")
    text, policy = answered.body.decode(), answered.header("content-security-policy") or ""
    assert text.count("<script>") == text.count("<style>") == 1
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert len(re.findall(r"'sha256-[A-Za-z0-9+/=]{44}'", policy)) == 2
    assert not re.search(r"\son\w+=|javascript:|\sstyle=|<link|https?://", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/docs/oauth2-redirect"])
def test_pages_that_load_scripts_from_elsewhere_do_not_exist(serve: Serve, path: str) -> None:
    assert serve().get(path).status == 404
