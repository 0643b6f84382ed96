"""The routes: a page, its JSON, its files, the stream of news, the door. Everything behind one guard.

Reading is threads' work (DuckDB and numpy let go of the interpreter), so a slow page holds up no other and no news.
"""

import time
from collections.abc import Awaitable, Callable, Iterator
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from jobs.errors import NotFound, QueryError, SeedbedError
from orchestrator.answers import KINDS, columns_of, file_of
from orchestrator.dashboard import charts
from orchestrator.dashboard.alerts import Alert
from orchestrator.dashboard.guard import visitor_of
from orchestrator.dashboard.kept import Kept
from orchestrator.dashboard.pages.cluster import cluster
from orchestrator.dashboard.pages.compare import compare
from orchestrator.dashboard.pages.home import home
from orchestrator.dashboard.pages.run import run
from orchestrator.dashboard.pages.runs import (
    chosen_fan,
    chosen_lines,
    chosen_page,
    matching_rows,
    run_rows,
    run_table,
    runs,
    study_of,
)
from orchestrator.dashboard.pages.sql import answer_table, sql
from orchestrator.dashboard.pages.study import picture_state, run_at, study
from orchestrator.dashboard.pictures import FORMATS
from orchestrator.dashboard.tokens import COOKIE_LIFE_S, Scope
from orchestrator.dashboard.view import Body, Params, Templates, View
from orchestrator.estimates.estimate import plain

Build = Callable[[View, Params], Body]
Endpoint = Callable[[Request], Awaitable[Response]]
PAGES: tuple[tuple[str, str, Build], ...] = (
    ("/home", "home", home),
    ("/study/{name}", "study", study),
    ("/runs", "runs", runs),
    ("/run/{run_id}", "run", run),
    ("/cluster", "cluster", cluster),
    ("/sql", "sql", sql),
    ("/compare", "compare", compare),
)
_MOST_URL = 8_000


def make_app(view: View, cookie: str) -> Starlette:
    """Return the application without its guard; `cookie` is the name of the cookie."""
    templates = Templates.load()
    static = StaticFiles(directory=str(files("orchestrator.dashboard").joinpath("static")))
    routes: list[Any] = [Route("/", _page(view, templates, "home", home), name="root")]
    kept = Kept()
    for path, template, build in PAGES:
        routes.append(Route(f"{path}.json", _kept(view, build, kept) if build is study else _json(view, build)))
        routes.append(Route(path, _page(view, templates, template, build)))
    routes += [
        Route("/study/{name}/lines.bin", _lines(view, charts.lines)),
        Route("/study/{name}/cell", _cell(view)),
        Route("/study/{name}/control.json", _control(view), methods=["POST"]),
        Route("/study/{name}/figure/{kind}.json", _json(view, picture_state)),
        Route("/study/{name}/figure/{kind}.{form}", _picture(view)),
        Route("/study/{name}/{chart}.json", _kept(view, chart_columns, kept)),
        Route("/study/{name}/{chart}.{kind}", _table(view, charts.chart_table)),
        Route("/rows.json", _json(view, run_rows)),
        Route("/places.json", _json(view, matching_rows)),
        Route("/rows.{kind}", _table(view, run_table)),
        Route("/chosen.json", _json(view, chosen_page)),
        Route("/chosen.bin", _lines(view, chosen_lines)),
        Route("/chosen.{kind}", _table(view, chosen_fan)),
        Route("/answer.{kind}", _table(view, answer_table)),
        Route("/events", _events(view)),
        Route("/login", _Door(view, templates, cookie).page, methods=["GET"]),
        Route("/login", _Door(view, templates, cookie).enter, methods=["POST"]),
        Route("/logout", _Door(view, templates, cookie).leave, methods=["POST"]),
        Mount("/static", static, name="static"),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(GZipMiddleware, minimum_size=800, compresslevel=5)],
        exception_handlers={SeedbedError: _error(templates), HTTPException: _error(templates), Exception: _broken},
    )


def _params(request: Request) -> Params:
    if len(str(request.url)) > _MOST_URL:
        raise QueryError(f"an address has at most {_MOST_URL:,} characters")
    return {**dict(request.query_params), **{k: str(v) for k, v in request.path_params.items()}}


def _page(view: View, templates: Templates, template: str, build: Build) -> Endpoint:
    async def page(request: Request) -> Response:
        body = await run_in_threadpool(build, view, _params(request))
        scope = visitor_of(request.scope)
        nav = _nav(view, body) | {"may_control": scope is not None and scope.covers(Scope.CONTROL)}
        more = {"nav": nav, "name": template}
        return HTMLResponse(await run_in_threadpool(templates.render, template, body, **more))

    return page


def _nav(view: View, body: Body) -> Body:
    return {"store": view.store_name, "study": body.get("study") or next(iter(view.feed.names()), "")}


def _json(view: View, build: Build) -> Endpoint:
    async def data(request: Request) -> Response:
        return JSONResponse(plain(await run_in_threadpool(build, view, _params(request))))

    return data


def chart_columns(view: View, params: Params) -> Body:
    """Return the rows behind one chart of a study, by columns."""
    return columns_of(charts.chart_table(view, params))


def _kept(view: View, build: Build, kept: Kept) -> Endpoint:
    async def data(request: Request) -> Response:
        params = _params(request)
        version = view.feed.shelf(params["name"]).version
        return await kept.json(request, version, lambda: plain(build(view, params)))

    return data


def _table(view: View, make: Callable[[View, Params], Any]) -> Endpoint:
    async def file(request: Request) -> Response:
        params = _params(request)
        kind = params["kind"]
        if kind not in KINDS:
            raise QueryError(f"an answer goes out as json, csv or parquet, not as {kind}")
        table = await run_in_threadpool(make, view, params)
        if kind == "json":
            return JSONResponse(await run_in_threadpool(columns_of, table))
        stem = "".join(
            c for c in f"{params.get('name', '')}-{params.get('chart', 'answer')}" if c.isalnum() or c in "._-"
        )
        headers = {"content-disposition": f'attachment; filename="{stem.strip("-")}.{kind}"'}
        return Response(await run_in_threadpool(file_of, table, kind), media_type=KINDS[kind], headers=headers)

    return file


def _picture(view: View) -> Endpoint:
    async def picture(request: Request) -> Response:
        params = _params(request)
        shelf = view.feed.shelf(params["name"])
        metric = params.get("metric") or shelf.summary.rule.metric
        body = view.pictures.file(shelf.declared.name, params["kind"], metric, params["form"])
        return Response(body, media_type=FORMATS[params["form"]])

    return picture


def _lines(view: View, make: Callable[[View, Params], Iterator[bytes]]) -> Endpoint:
    async def binary(request: Request) -> Response:
        pieces = await run_in_threadpool(make, view, _params(request))
        return StreamingResponse(pieces, media_type="application/octet-stream")

    return binary


def _cell(view: View) -> Endpoint:
    async def lead(request: Request) -> Response:
        params = _params(request)
        return RedirectResponse(f"/run/{run_at(view, params)}?study={study_of(view, {'study': params['name']})}", 303)

    return lead


def _control(view: View) -> Endpoint:
    async def control(request: Request) -> Response:
        scope = visitor_of(request.scope)
        if scope is None or not scope.covers(Scope.CONTROL):
            raise HTTPException(403, "this token only reads; `seedbed serve --control --new-link` makes one that acts")
        name = view.feed.shelf(_params(request)["name"]).declared.name
        form = _form(await request.body())
        told = await run_in_threadpool(view.control.act, name, form)
        view.alarm.raise_(Alert("control", name, told.says, time.time()))
        return JSONResponse(told.as_dict())

    return control


def _form(body: bytes) -> dict[str, list[str]]:
    try:
        return parse_qs(body.decode("utf-8", "replace"), max_num_fields=8)
    except ValueError:
        raise QueryError("a form has at most 8 fields") from None


def _events(view: View) -> Endpoint:
    async def events(_: Request) -> Response:
        if view.broadcast.is_full:
            return Response("too many open pages", 503, headers={"retry-after": "10"})
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        news = view.broadcast.stream(view.feed.versions)
        return StreamingResponse(news, media_type="text/event-stream", headers=headers)

    return events


class _Door:
    """The way in: a link that works once, or a token pasted into the form, for a cookie."""

    def __init__(self, view: View, templates: Templates, cookie: str) -> None:
        self._view, self._templates, self._cookie = view, templates, cookie

    async def page(self, request: Request) -> Response:
        code = request.query_params.get("once")
        scope = self._view.gate.of_link(code) if code else None
        if scope is not None:
            return self._let_in(scope, request)
        told = "That link was used before, or is older than ten minutes." if code else ""
        return self._form(told, 401 if code else 200)

    async def enter(self, request: Request) -> Response:
        form = _form(await request.body())
        scope = self._view.gate.of_token(form.get("token", [""])[0].strip())
        return self._let_in(scope, request) if scope else self._form("That is no token of this server.", 401)

    async def leave(self, _: Request) -> Response:
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(self._cookie, path="/")
        return answer

    def _form(self, told: str, status: int) -> Response:
        page = self._templates.render("login", {"title": "Log in", "told": told}, name="login")
        return HTMLResponse(page, status, headers={"cache-control": "no-store"})

    def _let_in(self, scope: Scope, request: Request) -> Response:
        # A page of ours that goes on, not a redirect: a Strict cookie is not sent along a chain that began elsewhere.
        page = self._templates.render("entered", {"title": "Welcome", "scope": str(scope)}, name="entered")
        answer = HTMLResponse(page, headers={"cache-control": "no-store"})
        answer.set_cookie(
            self._cookie,
            self._view.gate.cookie(scope),
            max_age=COOKIE_LIFE_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
            path="/",
        )
        return answer


def _error(templates: Templates) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            status, told = error.status_code, error.detail
        else:
            status, told = 404 if isinstance(error, NotFound) else 400, str(error)
        if request.url.path.endswith((".json", ".bin", ".csv", ".parquet")):
            return JSONResponse({"error": told}, status)
        page = templates.render("error", {"title": "Not possible", "told": told, "status": status}, name="error")
        return HTMLResponse(page, status)

    return answer


async def _broken(_: Request, __: Exception) -> Response:
    return Response(
        "500: the server made a mistake; its log on the terminal says which\n", 500, media_type="text/plain"
    )
