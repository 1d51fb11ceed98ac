"""The councils' command line: their own endpoints, deliveries and updates, over HTTP.

It knows a service by its address and a key, and nothing else of it: no database, no settings. Data
goes to stdout, as tables or JSON. What the service refuses is one line on stderr and an exit code:
2 usage, 4 not found, 5 conflict, 6 the service is not there or fails.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID, uuid4

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 30.0
PAGE = 200
MOMENTS = ["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"]
# Where there is no terminal whose width counts, lines are not broken.
WIDE = 400

app = typer.Typer(
    no_args_is_help=True, help="A council's own intake, over HTTP; needs no database."
)
endpoints_app = typer.Typer(no_args_is_help=True, help="Where reports are sent.")
deliveries_app = typer.Typer(no_args_is_help=True, help="What was sent, and sending it again.")
updates_app = typer.Typer(no_args_is_help=True, help="What becomes of reports.")
app.add_typer(endpoints_app, name="endpoints")
app.add_typer(deliveries_app, name="deliveries")
app.add_typer(updates_app, name="updates")

stderr = Console(stderr=True, highlight=False, soft_wrap=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option(min=1, help="How many at most, the newest first.")]
Endpoint = Annotated[UUID, typer.Argument(metavar="ENDPOINT", help="The endpoint's id.")]


class RefusedError(Exception):
    """What was asked for cannot be done; the message is the service's own."""


class UsageRefusedError(RefusedError):
    """The request, or the key, is not right."""


class NotThereError(RefusedError):
    """There is no such thing."""


class ConflictError(RefusedError):
    """It is not in a state for that."""


class RemoteError(RefusedError):
    """The service is not there, or fails."""


@dataclass(frozen=True, slots=True)
class Service:
    """The service and whose intake it is about."""

    url: str | None
    key: str | None
    authority: str | None

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> Any:
        """What the service answers about a path below the authority; raises `RefusedError`."""
        import httpx

        for name, given in (("URL", self.url), ("KEY", self.key), ("AUTHORITY", self.authority)):
            if not given:
                raise UsageRefusedError(
                    f"give --{name.lower()}, or set GEOROUTER_{name} in the environment"
                )
        try:
            with httpx.Client(
                base_url=f"{self.url}/v1",
                headers={"Authorization": f"Bearer {self.key}"},
                timeout=TIMEOUT_S,
            ) as client:
                address = f"/authorities/{self._authority_id(client)}{path}"
                return _read(client.request(method, address, json=body, params=_given(query)))
        except (
            httpx.InvalidURL,
            httpx.UnsupportedProtocol,
            httpx.LocalProtocolError,
            UnicodeEncodeError,
        ):
            raise UsageRefusedError(
                "--url takes the service's address, such as https://georouter.example, and --key "
                "an API key as it was given out"
            ) from None
        except httpx.HTTPError as error:
            raise RemoteError(f"{self.url}: {str(error) or type(error).__name__}") from None

    def _authority_id(self, client: httpx.Client) -> str:
        try:
            return str(UUID(self.authority))
        except ValueError:
            found = _read(client.get("/authorities", params={"code": self.authority}))["items"]
        if not found:
            raise NotThereError(f"no authority has the code {self.authority!r}")
        return str(found[0]["id"])

    def items(self, path: str, query: Mapping[str, Any], *, limit: int) -> list[Any]:
        """A list, page by page."""
        found: list[Any] = []
        cursor = None
        while len(found) < limit:
            size = min(PAGE, limit - len(found))
            page = self.ask("GET", path, query={**query, "limit": size, "cursor": cursor})
            found += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        return found


def _given(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """Without what was not given."""
    return {name: value for name, value in (values or {}).items() if value not in (None, [])}


def _read(response: httpx.Response) -> Any:
    """The answer's JSON, None of an empty one; raises the `RefusedError` of its status."""
    try:
        said = response.json() if response.content else None
    except ValueError:
        said = None
        if response.is_success:
            raise RemoteError(f"{response.url}: this is no georouter; its answer is no JSON") from (
                None
            )
    if response.is_success:
        return said
    status = response.status_code
    message = f"{response.url} answered {status}"
    if isinstance(said, dict) and "title" in said:
        message = f"{said['title']}: {said.get('detail', '')}"
        if "correlation_id" in said:
            message += f" ({said['correlation_id']})"
    kinds: dict[int, type[RefusedError]] = {404: NotThereError, 409: ConflictError}
    if status >= 500 or status < 400 or status in {408, 429}:
        raise RemoteError(_printable(message))
    raise kinds.get(status, UsageRefusedError)(_printable(message))


@app.callback()
def council(
    ctx: typer.Context,
    url: Annotated[
        str | None, typer.Option(envvar="GEOROUTER_URL", help="The service's address.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(envvar="GEOROUTER_KEY", help="An API key; better given as the variable."),
    ] = None,
    authority: Annotated[
        str | None,
        typer.Option(
            envvar="GEOROUTER_AUTHORITY", help="The authority's id or code, e.g. E08000010."
        ),
    ] = None,
) -> None:
    """Keep what all commands need."""
    ctx.obj = Service(url.rstrip("/") if url else None, key, authority)


# --- endpoints --------------------------------------------------------------------------------


@endpoints_app.command("list")
def endpoints_list(ctx: typer.Context, *, as_json: Json = False) -> None:
    """List the endpoints."""
    found = ctx.obj.ask("GET", "/endpoints")["items"]
    _table(found, ("id", "channel", "url", "state", "fallback", "created_at"), as_json=as_json)


@endpoints_app.command("register")
def endpoints_register(
    ctx: typer.Context,
    channel: Annotated[str, typer.Option(help="webhook, open311 or mail.")],
    address: Annotated[str, typer.Option("--address", help="https://... or mailto:...")],
    config: Annotated[
        typer.FileText | None,
        typer.Option(help="JSON file with what the channel must know, its key too; - is stdin."),
    ] = None,
    event: Annotated[
        list[str] | None, typer.Option(help="A message type that is wanted; repeat it.")
    ] = None,
    category: Annotated[
        list[str] | None, typer.Option(help="A category that is wanted; repeat it.")
    ] = None,
    *,
    fallback: Annotated[
        bool, typer.Option("--fallback", help="Only for what another endpoint could not be given.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Register an endpoint. Its secret is printed once."""
    body = {
        "channel": channel,
        "url": address,
        "fallback": fallback,
        "config": _object(config),
        "events": event,
        "categories": category,
    }
    made = ctx.obj.ask("POST", "/endpoints", body=_given(body))
    _facts(made, as_json=as_json)
    if made.get("secret"):
        stderr.print("keep the secret: it is not shown again")


def _object(file: typer.FileText | None) -> Any:
    if file is None:
        return None
    try:
        found = json.load(file)
    except ValueError as error:
        raise UsageRefusedError(f"--config is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise UsageRefusedError("--config takes a JSON object")
    return found


@endpoints_app.command("verify")
def endpoints_verify(
    ctx: typer.Context,
    endpoint: Endpoint,
    code: Annotated[str | None, typer.Option(help="The code that came by mail.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Have the challenge sent again, or give the code that came by mail."""
    body = {"code": code} if code is not None else None
    told = ctx.obj.ask("POST", f"/endpoints/{endpoint}/verify", body=body)
    _done(told, "verified" if code else "the challenge is sent again", as_json=as_json)


@endpoints_app.command("pause")
def endpoints_pause(ctx: typer.Context, endpoint: Endpoint, *, as_json: Json = False) -> None:
    """Have nothing sent for now; what is owed waits."""
    told = ctx.obj.ask("POST", f"/endpoints/{endpoint}/pause")
    _done(told, "paused", as_json=as_json)


@endpoints_app.command("resume")
def endpoints_resume(ctx: typer.Context, endpoint: Endpoint, *, as_json: Json = False) -> None:
    """Have what is owed sent again."""
    told = ctx.obj.ask("POST", f"/endpoints/{endpoint}/resume")
    _done(told, "resumed", as_json=as_json)


@endpoints_app.command("rotate")
def endpoints_rotate(
    ctx: typer.Context,
    endpoint: Endpoint,
    old_secret_for_hours: Annotated[
        int, typer.Option("--hours", min=0, help="How long the old secret signs too.")
    ] = 24,
    *,
    as_json: Json = False,
) -> None:
    """Get a new signing secret, printed once."""
    told = ctx.obj.ask(
        "POST",
        f"/endpoints/{endpoint}/rotate",
        body={"old_secret_for_hours": old_secret_for_hours},
    )
    _facts(told, as_json=as_json)
    stderr.print(f"keep the secret: it is not shown again; both sign for {old_secret_for_hours} h")


@endpoints_app.command("test")
def endpoints_test(ctx: typer.Context, endpoint: Endpoint, *, as_json: Json = False) -> None:
    """Have a signed test message sent."""
    told = ctx.obj.ask("POST", f"/endpoints/{endpoint}/test")
    _done(told, "on its way; `endpoints list --json` has its outcome", as_json=as_json)


@endpoints_app.command("health")
def endpoints_health(ctx: typer.Context, endpoint: Endpoint, *, as_json: Json = False) -> None:
    """Show what waits, and how the last day went."""
    _facts(ctx.obj.ask("GET", f"/endpoints/{endpoint}/health"), as_json=as_json)


@endpoints_app.command("delete")
def endpoints_delete(ctx: typer.Context, endpoint: Endpoint) -> None:
    """Delete an endpoint; what it was owed goes to the others, or is held."""
    ctx.obj.ask("DELETE", f"/endpoints/{endpoint}")
    stderr.print("deleted")


# --- deliveries, audit ------------------------------------------------------------------------


@deliveries_app.command("list")
def deliveries_list(
    ctx: typer.Context,
    state: Annotated[
        str | None, typer.Option(help="pending, leased, delivered, dead or cancelled.")
    ] = None,
    endpoint: Annotated[UUID | None, typer.Option(help="Only those of an endpoint.")] = None,
    report: Annotated[UUID | None, typer.Option(help="Only those about a report.")] = None,
    limit: Limit = 50,
    *,
    as_json: Json = False,
) -> None:
    """List deliveries; --state dead are those that were given up."""
    query = {"state": state, "endpoint_id": endpoint, "report_id": report}
    found = ctx.obj.items("/deliveries", query, limit=limit)
    rows = [{**one, "attempts": len(one["attempts"]), "last": _last(one)} for one in found]
    columns = ("id", "report_id", "sequence", "state", "created_at", "attempts", "last")
    _table(found if as_json else rows, columns, as_json=as_json)


def _last(delivery: Mapping[str, Any]) -> str:
    """What the last attempt came to."""
    tries = delivery["attempts"]
    return (tries[-1]["error"] or tries[-1]["outcome"] or "running") if tries else ""


@deliveries_app.command("redeliver")
def deliveries_redeliver(
    ctx: typer.Context,
    delivery: Annotated[
        UUID | None, typer.Argument(metavar="[DELIVERY]", help="The delivery's id.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option("--from", formats=MOMENTS, help="Instead: all that ended from then on, UTC"),
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--to", formats=MOMENTS, help="and before then.")
    ] = None,
    state: Annotated[
        list[str] | None, typer.Option(help="How it ended, dead by default; repeat it.")
    ] = None,
    endpoint: Annotated[UUID | None, typer.Option(help="Only what this endpoint got.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Send a delivery again, or all that ended within a span of time, under the same ids."""
    if delivery is not None:
        if since or until or state or endpoint:
            raise UsageRefusedError("give a delivery, or a span of time, not both")
        told = ctx.obj.ask("POST", f"/deliveries/{delivery}/redeliver")
        _done(told, "on its way again", as_json=as_json)
        return
    if since is None or until is None:
        raise UsageRefusedError("give a delivery, or --from and --to")
    body = {
        "from": _instant(since),
        "to": _instant(until),
        "states": state,
        "endpoint_id": str(endpoint) if endpoint else None,
    }
    told = ctx.obj.ask("POST", "/deliveries/redeliver", body=_given(body))
    more = "; there may be more: run it again" if told["more"] else ""
    _done(told, f"{told['count']} on their way again{more}", as_json=as_json)


def _instant(moment: datetime) -> str:
    """In UTC, which it is taken for without a zone."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


@app.command()
def audit(ctx: typer.Context, limit: Limit = 50, *, as_json: Json = False) -> None:
    """Show who did what to the intake."""
    found = ctx.obj.items("/audit", {}, limit=limit)
    _table(found, ("at", "key_label", "action", "target", "detail"), as_json=as_json)


# --- updates ----------------------------------------------------------------------------------


@updates_app.command("post")
def updates_post(
    ctx: typer.Context,
    report: Annotated[UUID, typer.Argument(metavar="REPORT", help="The report's id.")],
    state: Annotated[
        str,
        typer.Option(
            help="acknowledged, investigating, planned, in_progress, fixed, closed or reopened."
        ),
    ],
    note: Annotated[str | None, typer.Option(help="For the reporter to read.")] = None,
    reason: Annotated[
        str | None,
        typer.Option(help="With closed: no_further_action, duplicate or not_responsible."),
    ] = None,
    responsible: Annotated[
        str | None, typer.Option(help="With not_responsible: code of who is.")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="Your own number for it.")] = None,
    expected_on: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="When it should be done.")
    ] = None,
    update_id: Annotated[
        str | None, typer.Option(help="Yours: the same again changes nothing. New by default.")
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Tell the reporter how the work is getting on, or that it is not yours."""
    body = {
        "update_id": update_id or str(uuid4()),
        "state": state,
        "note": note,
        "reason": reason,
        "responsible": responsible,
        "reference": reference,
        "expected_on": expected_on.date().isoformat() if expected_on else None,
    }
    told = ctx.obj.ask("POST", f"/reports/{report}/updates", body=_given(body))
    _done(told, f"noted as event {told['n']} of the report", as_json=as_json)


# --- printing ---------------------------------------------------------------------------------


def _stdout() -> Console:
    # Made when it is used: stdout may be another by then.
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)


def _table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    rows = list(rows)
    if as_json:
        typer.echo(json.dumps(rows))
        return
    if not rows:
        stderr.print("there is none")
        return
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    _stdout().print(table)


def _facts(found: Mapping[str, Any], *, as_json: bool) -> None:
    """One thing, a line for each of its fields."""
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in found.items():
        table.add_row(Text(name), _cell(value))
    _stdout().print(table)


def _done(told: Any, message: str, *, as_json: bool) -> None:
    """What was done: the service's answer as JSON, or a sentence."""
    if as_json:
        typer.echo(json.dumps(told))
    else:
        stderr.print(message, markup=False)


def _cell(value: object) -> Text:
    if value is None:
        return Text("-")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return Text(_printable(text))


def _printable(text: str) -> str:
    """Without what would command the terminal: some of it was written by strangers."""
    return "".join(one if one.isprintable() else " " for one in text)
