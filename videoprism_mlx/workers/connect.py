"""Connecting to Dask: to a scheduler, or to worker processes on this machine."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from videoprism_mlx.errors import (
    InputError,
    InputTypeError,
    NetworkError,
    WorkerError,
    shown,
)
from videoprism_mlx.files.download import answered, explained
from videoprism_mlx.files.record import own_version
from videoprism_mlx.progress import note
from videoprism_mlx.runtime.libraries import require_library
from videoprism_mlx.workers.places import Mapped, Places
from videoprism_mlx.workers.quiet import quiet

if TYPE_CHECKING:
    from distributed import Client

NEEDED_FOR = "work on several machines or processes"

# How long a scheduler may take to answer.
SECONDS = 8.0

# An address as people give it.
EXAMPLE = "tcp://mac1:8786"

PROTOCOLS = ("tcp", "tls", "ws", "wss")

# What must be the same everywhere, because Dask's messages depend on it.
PACKAGES = ("dask", "distributed")


@contextmanager
def connected(client: "Client | str | int", show: bool = True) -> Iterator["Client"]:
    """A client of Dask: one that is given, of the scheduler with an address, or of new workers.

    A number starts so many worker processes on this machine, which end with the block. `show`
    prints where Dask's dashboard is.

    Raises NetworkError if the scheduler cannot be reached, and WorkerError if it has other
    versions of Python or Dask.
    """
    require_library("distributed", NEEDED_FOR)
    if isinstance(client, str):
        yield from _of_scheduler(client, show)
    elif is_count(client):
        yield from _of_workers(client, show)
    else:
        with quiet():
            given = checked_client(client)
            require_package(given)
            yield given


class Asked(NamedTuple):
    """Who is to do the work: a client or a number of processes, and how they get the videos."""

    client: "Client | int"
    places: Places
    send: bool
    show: bool


@contextmanager
def reached(
    client: "Client | str | int | None", mapping: Mapped | None, send: bool, show: bool
) -> Iterator[Asked | None]:
    """Checks what is asked of workers; None without a client.

    A scheduler is reached at once. Processes are started when there is something to do.
    """
    if client is None:
        for name, value in (("mapping", mapping), ("send_files", send)):
            if value:
                raise InputError(f"{name} is for workers; give client as well")
        yield None
        return
    places = Places.of(mapping)
    if is_count(client):
        yield Asked(client, places, send, show)
        return
    with connected(client, show) as found:
        yield Asked(found, places, send, show)


def is_count(client: "Client | str | int") -> TypeGuard[int]:
    """Whether new processes are asked for. Raises InputError unless it is 1 or more of them."""
    if not isinstance(client, int) or isinstance(client, bool):
        return False
    require_library("distributed", NEEDED_FOR)
    if client < 1:
        raise InputError(f"the number of workers (--workers) is {client}; expected 1 or more")
    return True


def checked_client(client: Any) -> "Client":
    """A client that the caller has made. Raises an error unless it can be used."""
    from distributed import Client

    if not isinstance(client, Client):
        raise InputTypeError(
            f"client is {shown(client)}; expected a distributed.Client, the address of a "
            f"scheduler, such as {EXAMPLE}, or a number of workers"
        )
    if client.asynchronous:
        raise InputError("client is asynchronous; expected one with asynchronous=False")
    if client.status != "running":
        raise InputError(f"client is {client.status}; expected one that is connected")
    return client


def _of_workers(count: int, show: bool) -> "Iterator[Client]":
    """A client of `count` new worker processes."""
    from distributed import Client

    from videoprism_mlx.workers.local import local_workers

    with local_workers(count) as cluster, Client(cluster, set_as_default=False) as client:
        _say_where(client, show)
        yield client


def _of_scheduler(address: str, show: bool) -> "Iterator[Client]":
    """A client of the scheduler with this address."""
    from distributed import Client

    address = checked_address(address)
    with quiet():
        facts = facts_of_scheduler(address)
        require_versions(f"the scheduler {address}", facts["versions"]["packages"])
        with _reaching(address):
            client = Client(address, timeout=SECONDS, set_as_default=False)
        with client:
            require_package(client)
            _say_where(client, show)
            yield client


def checked_address(address: str) -> str:
    """The address with its protocol. Raises InputError unless it has the form of an address."""
    from distributed.comm.addressing import normalize_address, parse_address, parse_host_port

    expected = f"expected the address of a scheduler, such as {EXAMPLE}"
    full = normalize_address(address.strip())
    protocol, place = parse_address(full)
    if protocol not in PROTOCOLS:
        raise InputError(
            f"{shown(address)} has the protocol {shown(protocol)}, and not one of "
            f"{', '.join(PROTOCOLS)}; {expected}"
        )
    try:
        host, port = parse_host_port(place)
        is_possible = bool(host) and 0 < port < 2**16
    except ValueError:
        is_possible = False
    if not is_possible:
        raise InputError(f"{shown(address)} has no host, or no number of a port; {expected}")
    return full


def facts_of_scheduler(address: str) -> dict[str, Any]:
    """What the scheduler with this address says of itself.

    Raises NetworkError if nothing answers there, or something other than a scheduler.
    """
    from distributed.comm.addressing import parse_host_port

    def ask() -> dict[str, Any]:
        # Dask would try again and again, and not say what the matter is.
        socket.create_connection(parse_host_port(address), SECONDS).close()
        return asyncio.run(_ask(address))

    with _reaching(address):
        facts = answered(ask, SECONDS)
        kind = facts["identity"].get("type")
        if kind != "Scheduler":
            raise ConnectionError(f"that is the address of a {str(kind).lower()}")
    return facts


async def _ask(address: str) -> dict[str, Any]:
    from distributed import Security
    from distributed.core import rpc

    arguments = Security().get_connection_args("client")

    async def facts() -> dict[str, Any]:
        async with rpc(address, timeout=SECONDS, connection_args=arguments) as scheduler:
            identity = await scheduler.identity()
            return {"identity": identity, "versions": await scheduler.versions()}

    try:
        return await asyncio.wait_for(facts(), SECONDS)
    except asyncio.TimeoutError:
        raise TimeoutError(f"no answer in {SECONDS:g} s") from None
    except (OSError, MemoryError, OverflowError, ValueError):
        raise ConnectionError("what answers there is not Dask's scheduler") from None


@contextmanager
def _reaching(address: str) -> Iterator[None]:
    """Explains why a scheduler cannot be reached."""
    hint = (
        "start one with `dask scheduler` on that machine, and give the address that it prints "
        f"(--scheduler {EXAMPLE})"
    )
    with explained(f"the scheduler {address}", hint, kind=NetworkError):
        yield


def require_versions(where: str, packages: Any) -> None:
    """Raises WorkerError unless Python and Dask have the same versions there as here."""
    from distributed.versions import get_versions

    here = get_versions()["packages"]
    for name in ("python", *PACKAGES):
        found, expected = str(packages.get(name)), str(here[name])
        if name == "python":
            found, expected = (".".join(one.split(".")[:2]) for one in (found, expected))
        if found != expected:
            said = "Python" if name == "python" else name
            raise WorkerError(
                f"{where} has {said} {found}, and this machine has {expected}; install the same "
                "version on all machines"
            )


def require_package(client: "Client") -> None:
    """Raises WorkerError unless the scheduler has this package too, which reads its tasks."""
    try:
        found = client.run_on_scheduler(own_version)
    except ImportError:
        found = None
    if found != own_version():
        scheduler: Any = client.scheduler
        which = "is not installed there" if found is None else f"is version {found} there"
        raise WorkerError(
            f"the scheduler {scheduler.address} cannot read the tasks: videoprism_mlx "
            f"{which}; install {own_version()} on all machines, and start it again"
        )


def _say_where(client: "Client", show: bool) -> None:
    """Prints where the dashboard is, if there is one."""
    try:
        link = client.dashboard_link
    except KeyError:  # A scheduler that was started without it.
        return
    if show and link:
        note(f"Dask's dashboard: {link}")
