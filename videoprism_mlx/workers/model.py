"""The model on workers: loaded from a copy that they have, or from files that are sent to them."""

import dataclasses
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import EXPECTED, InputError, WorkerError, in_words
from videoprism_mlx.files.atomic import new_directory
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.files.lock import Claim
from videoprism_mlx.files.places import cache_directory
from videoprism_mlx.files.record import digest, own_version
from videoprism_mlx.models import RELEASES, SHIPPED, canonical_name
from videoprism_mlx.progress import note
from videoprism_mlx.runtime import memory, precision
from videoprism_mlx.weights import hub
from videoprism_mlx.weights.directory import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    check_shapes,
    read_checked_config,
    save_model,
)
from videoprism_mlx.weights.identity import ModelIdentity
from videoprism_mlx.weights.integrity import known_checksum
from videoprism_mlx.weights.loading import load_with_directory, repository_of
from videoprism_mlx.weights.quantize.layers import stored_config
from videoprism_mlx.workers.files import Files
from videoprism_mlx.workers.places import Places, size_of
from videoprism_mlx.workers.sending import Offer, Sender, fetch

if TYPE_CHECKING:
    from distributed import Client

# The folder of the cache for models that were sent.
SENT_FOLDER = "sent"

# How often to look whether another process has fetched a model, in seconds.
POLL = 0.1


@dataclasses.dataclass(frozen=True)
class Identity:
    """What distinguishes a model in memory from others."""

    parameters: str
    config: str
    dtype: str

    @classmethod
    def of(cls, model: VideoPrismModel) -> "Identity":
        """Reads all parameters, which takes a second for a gigabyte."""
        found = ModelIdentity(model)
        return cls(found.parameters, digest(stored_config(model)), found.dtype)

    def __str__(self) -> str:
        return f"{self.dtype}, parameters {self.parameters[:12]}, configuration {self.config[:8]}"


@dataclasses.dataclass(frozen=True)
class SharedModel:
    """A model as workers load it.

    `name` is a name or Hub id; None for a directory. `directory` is where the files are on the
    machine that the command runs on, and `offers` are those files.
    """

    name: str | None
    directory: str
    dtype: str | None
    offers: tuple[Offer, ...]
    identity: Identity
    places: Places

    def load(self) -> VideoPrismModel:
        """The model, which a process loads once. Raises WorkerError if it is another one."""
        with _loading:
            if self.identity not in _loaded:
                model = load_with_directory(self.find(), self.dtype)[0]
                mx.eval(model.parameters())  # Other threads cannot read weights that are lazy.
                found = Identity.of(model)
                if found != self.identity:
                    raise WorkerError(
                        f"the model on {platform.node()} is another one: {found}; expected "
                        f"{self.identity}"
                    )
                _loaded.clear()
                _loaded[self.identity] = model
            return _loaded[self.identity]

    def find(self) -> Path:
        """The directory of the model on this machine, to which it is sent if need be."""
        for directory in self.own_copies():
            if (directory / CONFIG_FILE).is_file() and (directory / WEIGHTS_FILE).is_file():
                if self.has_weights(directory):
                    return directory
                if self.name is None:
                    raise WorkerError(
                        f"{directory} on {platform.node()} holds another model: the checksum of "
                        f"{WEIGHTS_FILE} is {known_checksum(directory / WEIGHTS_FILE)[:12]}, and "
                        f"not {self.sha256[:12]}; copy the model there again, or remove that "
                        "directory so that the model is sent"
                    )
        return self.received()

    def own_copies(self) -> Iterator[Path]:
        """Directories of this machine that may hold the model."""
        yield from map(Path, self.places.candidates(self.directory))
        if self.name is None:
            return
        text, revision = hub.split_revision(self.name)
        name, repository = canonical_name(text), repository_of(text)
        if name in SHIPPED:
            yield SHIPPED[name]
        elif name in RELEASES:
            yield hub.converted_directory(name, revision)
        elif repository is not None:
            copy = hub.cached_model(repository, revision)
            yield from [] if copy is None else [copy]

    @property
    def sha256(self) -> str:
        """The checksum of the weights."""
        return next(str(one.sha256) for one in self.offers if Path(one.path).name == WEIGHTS_FILE)

    def has_weights(self, directory: Path) -> bool:
        """Whether a directory holds the same weights. Large ones are only read once."""
        try:
            return known_checksum(directory / WEIGHTS_FILE) == self.sha256
        except InputError:  # They are damaged.
            return False

    def received(self) -> Path:
        """The directory of the model in the cache, after its files were sent to it.

        One process of a machine fetches them, and others wait for it.
        """
        name = digest([[Path(one.path).name, one.sha256] for one in self.offers])
        target = cache_directory() / SENT_FOLDER / name
        while not target.is_dir():
            claim = Claim.take(target.with_name(f".{name}.lock"))
            if claim is None:
                time.sleep(POLL)
                continue
            try:
                if not target.is_dir():
                    with new_directory(target) as partial:
                        for offer in self.offers:
                            fetch(offer, partial / Path(offer.path).name)
            finally:
                claim.release()
        return target


# The model of this process, and the lock of whoever loads it.
_loaded: dict[Identity, VideoPrismModel] = {}
_loading = threading.Lock()

# The model of a process runs for one of its tasks at a time.
turn = threading.Lock()


@contextmanager
def shared_model(
    sender: Sender,
    model: VideoPrismModel,
    name: str | Path | None,
    dtype: str | None,
    places: Places,
) -> Iterator[SharedModel]:
    """A loaded model, as workers load it. In the block, its files are sent to those without it.

    `name` is what it was loaded as. None is for a model in memory, which may have changed since,
    and for one with adapters: it is written to a temporary directory first.
    """
    with ExitStack() as stack:
        if name is None or model.directory is None:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="videoprism_mlx-model-")
            )
            directory = Path(folder) / "model"
            save_model(model, directory)
            check_shapes(directory, *read_checked_config(directory))
            name, dtype = None, None
        else:
            directory = Path(os.path.abspath(model.directory))
        text = None if name is None else hub.split_revision(name)[0]
        is_name = text is not None and (canonical_name(text) or repository_of(text))
        offers = [
            sender.offer(directory / CONFIG_FILE, sha256=sha256(directory / CONFIG_FILE)),
            sender.offer(directory / WEIGHTS_FILE, sha256=known_checksum(directory / WEIGHTS_FILE)),
        ]
        called = str(name) if is_name else None
        yield SharedModel(called, str(directory), dtype, tuple(offers), Identity.of(model), places)


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a worker says of itself when it joins."""

    host: str
    mlx: str
    device: str
    precision: str

    @classmethod
    def here(cls) -> "Facts":
        """The facts of this process."""
        from importlib.metadata import version

        device = mx.default_device().type.name.upper()
        return cls(platform.node(), version("mlx"), device, precision.in_force())

    def differences(self, there: "Facts") -> list[str]:
        """In what a worker differs, if that changes only how results are rounded."""
        return [
            f"{what} {getattr(there, name)} (here {getattr(self, name)})"
            for name, what in (("mlx", "MLX"), ("device", "the"), ("precision", "products in"))
            if getattr(there, name) != getattr(self, name)
        ]


def introduce(model: SharedModel, videos: Sequence[tuple[str, int]], files: Files) -> Facts:
    """On a worker that joins: loads the model, and looks for some videos of the run.

    Raises an error that says why it cannot take part.
    """
    memory.keep_freed()
    model.load()
    files.require_sight(videos)
    return Facts.here()


def acceptance(
    model: SharedModel, videos: Sequence[tuple[str, int]], files: Files
) -> Callable[["Client", str], str | None]:
    """A function of a client and the address of a worker that joins: why it is refused, or None."""
    here = Facts.here()

    def accept(client: "Client", address: str) -> str | None:
        reason = wrong_version(client, address)
        if reason is not None:
            return reason
        there_now = [one for one in videos if is_there(*one)]
        try:
            there: Facts = client.submit(
                introduce,
                *(model, there_now, files),
                key=f"introduce-{os.urandom(8).hex()}",
                workers=[address],
                allow_other_workers=False,
                pure=False,
            ).result()
        except EXPECTED as error:
            return in_words(error)
        except Exception as error:  # Whatever is wrong with one worker, the others can go on.
            return f"{type(error).__name__}: {error}"
        if differing := here.differences(there):
            note(f"{there.host}: {', '.join(differing)}; results may be rounded differently")
        return None

    return accept


def is_there(path: str, size: int) -> bool:
    """Whether a video is here as it was. If not, workers cannot see it either."""
    try:
        return size_of(Path(path)) == size
    except EXPECTED:
        return False


def wrong_version(client: "Client", address: str) -> str | None:
    """Why a worker cannot run our tasks; None if it has the same version as this process."""
    found: Any = client.run(own_version, workers=[address], on_error="return").get(address)
    if found == own_version():
        return None
    # The scheduler passes on the text of an error of reading a message, and not the error.
    if isinstance(found, ImportError) or "No module named 'videoprism_mlx'" in str(found):
        return f"videoprism_mlx is not installed there; install {own_version()}"
    if isinstance(found, Exception) or found is None:
        return f"it does not answer ({found or 'it has left'})"
    return f"it has videoprism_mlx {found}, and this machine has {own_version()}"
