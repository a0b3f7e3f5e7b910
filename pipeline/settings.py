"""One frozen tree of settings, read from TOML. Every value has a default that works."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import msgspec

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
TYPE_WEIGHTS = {
    "impression": 0.1,
    "search": 0.5,
    "view": 1.0,
    "click": 1.0,
    "cart": 3.0,
    "buy": 5.0,
    "purchase": 5.0,
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")


class SettingsError(ValueError):
    """A settings file or value is wrong; the message says where and how to mend it."""


Count = Annotated[int, msgspec.Meta(ge=0, le=10**15)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=10**15)]
Weight = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Part = Annotated[float, msgspec.Meta(gt=0, lt=1)]
"""A share that is neither nothing nor all."""
Dropout = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Distance = Annotated[float, msgspec.Meta(gt=0)]


class Duration(int):
    """A span of event time in milliseconds, written as "30m", "7d", "1.5h"."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a duration.

        >>> Duration.parse("30m")
        Duration(1800000)

        Raises:
            SettingsError: the text is none, or one of more than a thousand years.
        """
        match = _DURATION.fullmatch(text.strip())
        if not match:
            raise SettingsError(
                f"{text!r} is not a duration: write a number and a unit, such as 30m, 24h or 7d"
            )
        milliseconds = float(match[1]) * _UNITS[match[2]]
        if milliseconds > _LONGEST:
            raise SettingsError(f"{text!r} is too long a duration: write {_LONGEST} or less")
        return cls(milliseconds)

    def __repr__(self) -> str:
        return f"Duration({int(self)})"

    def __str__(self) -> str:
        for unit in ("w", "d", "h", "m", "s"):
            if self and self % _UNITS[unit] == 0:
                return f"{self // _UNITS[unit]}{unit}"
        return f"{int(self)}ms"


_LONGEST = Duration(365_000 * _UNITS["d"])
"""Two of these and a time, in milliseconds, stay far within 64 bits."""


class PositiveDuration(Duration):
    """A duration that is not nothing."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a duration.

        Raises:
            SettingsError: the text is none, or one that is too long or 0.
        """
        duration = super().parse(text)
        if not duration:
            raise SettingsError(f"{text!r} is no time at all: write 1ms or more")
        return duration


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the settings file."""


class Source(Section, frozen=True):
    """How events of other layouts are read: our field -> their column."""

    map: dict[str, str] = {}
    earliest: str = "1990-01-01"
    latest: str = "2100-01-01"
    ahead: Duration = Duration.parse("1d")
    """How far an event's time may be ahead of the time at which its record was sent; on a bus."""


class Interests(Section, frozen=True):
    """The interest state of a user."""

    short_half_life: PositiveDuration = PositiveDuration.parse("14d")
    long_half_life: PositiveDuration = PositiveDuration.parse("180d")
    category_depth: Count = 2
    """How many levels of a category path count; 0 takes the whole path."""
    session_gap: Duration = Duration.parse("30m")
    """Silence that ends a session where events carry no session id."""
    lateness: Duration = Duration.parse("1d")
    """How far behind the same user's newest event an event may be and still count."""
    retention: Duration = Duration.parse("0s")
    """Silence after which a user is forgotten, and begins anew; 0 forgets nobody."""
    profile_interval: Duration = Duration.parse("1d")
    """A user's profile is published at most once in this span; 0 never publishes it."""
    type_weights: dict[str, Weight] = msgspec.field(default_factory=lambda: dict(TYPE_WEIGHTS))
    """What an event of a type adds to an interest; 0 leaves the type out."""
    default_type_weight: Weight = 1.0


class Drift(Section, frozen=True):
    """Change detection for users."""

    events_per_false_alarm: Positive = 10_000
    """Without a change, a user raises one false alarm in this many events, on average."""
    false_discovery_rate: Part = 0.05
    """Of the users that raise an alert, at most this share raises a false one, where as many
    users change as do not."""
    minimum_events: Count = 20
    """No alert before a user has shown this many."""
    detector: str = "driftline"
    """Or, in a replay, one of River's: river:adwin, river:kswin, river:pagehinkley."""
    prior: str = ""
    """A prior made from history; empty takes a uniform one."""


class Trends(Section, frozen=True):
    """Categories rising and falling over all users."""

    window: PositiveDuration = PositiveDuration.parse("7d")
    false_discovery_rate: Part = 0.05
    warm_up: Count = 6
    """Windows seen before the first alert."""
    minimum_events: Positive = 50
    """A category is judged when this many of its events are seen or expected in a window."""
    population_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1
    """Of the active users; when so many move at once, that is one alert about the population."""
    horizons: Count = 4
    """Windows ahead that are forecast; 0 forecasts none."""
    coverage: Part = 0.9
    """Share of the forecast intervals that are to hold what comes."""


class Windows(Section, frozen=True):
    """Rolling windows that the learner is fed with."""

    size: PositiveDuration = PositiveDuration.parse("7d")
    lateness: Duration = Duration.parse("1d")


class Model(Section, frozen=True):
    """The next-item sequence model."""

    kind: Literal["transformer", "gru"] = "transformer"
    """What reads a sequence: causal self-attention or gated recurrent units."""
    dim: Positive = 64
    blocks: Positive = 1
    heads: int = 2
    max_length: Positive = 30
    """How many of a user's newest events the model looks at."""
    dropout: Dropout = 0.2
    item_dropout: Dropout = 0.0
    """Of the items' embeddings, on the way in."""
    output: Literal["state", "mean", "sum"] = "state"
    """What stands for an input: the Transformer's state, a weighted mean of the items, or both."""

    def __post_init__(self) -> None:
        """Hold the heads to the width that they share."""
        if self.heads < 1 or self.dim % self.heads:
            raise SettingsError(
                f"learning.model: dim is {self.dim} and heads is {self.heads}: dim must be a "
                "multiple of heads"
            )


class Knn(Section, frozen=True):
    """The session kNN."""

    span: Distance = 3.0
    """Events over which the weight of a pair falls by e."""
    focus: Distance = 3.0
    """Events over which the weight of an input's event falls by e."""
    backward: Weight = 0.2
    """Weight of a pair taken against its order."""
    rarity: Weight = 0.5
    """An input's event weighs its item's count to the power of minus this."""


class Learning(Section, frozen=True):
    """The continual learner."""

    model: Model = Model()
    knn: Knn = Knn()
    sequence: Literal["auto", "user", "session"] = "auto"
    """What makes a sequence; "auto": a user, or a session where events carry no user."""
    device: str = "cpu"
    threads: Positive = 1
    """CPU threads; rounding depends on how many, so the machine does not decide it."""
    evaluate_at_most: Count = 1024
    """Targets evaluated in a window, drawn by seed where there are more; 0 takes all."""
    absorptions: Count = 32
    """Times within a window that the kNN takes in what has come; 0 waits for the window's end."""
    first_epochs: Positive = 10
    """At most so many times over the first window."""
    epochs: Positive = 2
    """At most so many times over each later window."""
    most_events: Positive = 1000
    """Newest events of a user, or session, in a window that are learnt from."""
    retrain: bool = False
    """Whether each window starts from new weights in place of the champion's."""
    batch: Positive = 32
    """Inputs in a training step."""
    learning_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] = 2e-3
    full_softmax_up_to: Count = 5_000
    """With more items than this, training draws negatives."""
    half_precision: bool = False
    """Whether the softmax over all items multiplies in bfloat16 while training: half the memory."""
    negatives: Positive = 1024
    """Negatives drawn for a training step."""
    replay: Weight = 0.1
    """Replayed inputs for each new one; 0 replays none."""
    replay_capacity: Count = 10_000
    """Sequences remembered for replay."""
    replay_policy: Literal["reservoir", "recency", "frequency", "fading", "herding", "loss"] = (
        "reservoir"
    )
    """Which are remembered: all alike, the newest, those that end on frequent items, fewer the
    longer ago they are, those most typical of their last item, or those hard to foresee."""
    distillation: Weight = 0.0
    """Weight of keeping to the parent on replayed inputs; 0 switches it off."""
    ewc: Weight = 0.0
    """Strength of elastic weight consolidation; 0 switches it off."""
    ewc_decay: Share = 0.9
    ewc_samples: Positive = 256
    """Questions that a window's Fisher information is measured on."""
    update_rank: Count = 0
    """A window changes each large matrix of weights by one of this rank; 0: there is no bound."""
    half_life: PositiveDuration = PositiveDuration.parse("56d")
    """Of the counts behind popularity, Markov, kNN and personal frequency."""
    neighbours: Positive = 200
    """Items remembered as following an item, and as bought by a user."""
    forget_after: PositiveDuration = PositiveDuration.parse("365d")
    """Silence after which a user's history is dropped."""
    item_windows: Count = 0
    """Learnt windows in a row without an item after which it is dropped; 0 keeps all."""
    held_out: Part = 0.1
    """The newest share of a window, by time, that the gate judges on."""
    gate_at_most: Positive = 512
    """Targets that the gate judges on, of the window and of the past each."""
    gate_tolerance: Share = 0.05
    """A challenger may score this share less than the champion on the newest slice."""
    gate_forgetting: Share = 0.1
    """A challenger may score this share less than the champion on the past."""
    gate_flood: Share = 0.2
    """Share of a window's events that may be one user's of one item; with more it is refused."""
    gate_copies: Share = 0.9
    """Share of a window's sequences that may repeat earlier ones; with more it is refused."""
    probes: Count = 16
    """Past windows that each champion is asked about, to tell what it forgot; 0 asks none."""
    probe_targets: Positive = 512
    """Targets asked of each of them."""
    stale_detector: Literal["ADWIN", "PageHinkley"] = "ADWIN"
    """A detector of river.drift, fed with the hits of the model in order."""
    stale_memory: Positive = 20_000
    """Hits remembered for it."""


class Signing(Section, frozen=True):
    """Who signs checkpoints, and whose signatures are trusted."""

    key: str = ""
    """A PEM file with an Ed25519 private key; empty leaves checkpoints unsigned."""
    trusted: list[str] = []
    """PEM files with public keys; where there are any, other checkpoints are refused."""


class Settings(Section, frozen=True):
    """Everything that decides what comes out, given what goes in."""

    seed: Count = 7
    source: Source = Source()
    interests: Interests = Interests()
    drift: Drift = Drift()
    trends: Trends = Trends()
    windows: Windows = Windows()
    learning: Learning = Learning()
    signing: Signing = Signing()

    @property
    def version(self) -> str:
        """A short hash of all values: the same settings, the same version."""
        return hashlib.sha256(self.encode()).hexdigest()[:12]

    def encode(self) -> bytes:
        """Write all values as JSON, but for who signs, which decides nothing of what is signed."""
        unsigned = msgspec.structs.replace(self, signing=Signing())
        return msgspec.json.encode(unsigned, enc_hook=_encode_hook, order="sorted")

    @classmethod
    def decode(cls, data: bytes) -> Settings:
        """Read what `encode` has written.

        Raises:
            SettingsError: another release wrote it.
        """
        try:
            return msgspec.json.decode(data, type=cls, dec_hook=decode_duration)
        except (msgspec.MsgspecError, SettingsError) as error:
            raise SettingsError(f"settings of another release: {error}") from None


def decode_duration(kind: type, value: Any) -> Any:
    """Read a duration for msgspec, which knows none.

    Raises:
        SettingsError: the value is none.
    """
    if issubclass(kind, Duration) and isinstance(value, str):
        return kind.parse(value)
    raise SettingsError(f'{value!r} is not a duration: write it in quotes, such as "7d"')


def _encode_hook(value: Any) -> Any:
    if isinstance(value, Duration):
        return str(value)
    raise NotImplementedError(type(value))


def from_toml(text: str, where: str = "settings") -> Settings:
    """Read settings from TOML text; `where` is named in errors."""
    try:
        return msgspec.toml.decode(text, type=Settings, dec_hook=decode_duration)
    except (msgspec.DecodeError, msgspec.ValidationError, SettingsError) as error:
        raise SettingsError(
            f"{where}: {error}; `driftline init` writes a file with every setting and its default"
        ) from None


def load(path: Path | None) -> Settings:
    """Read settings from a file, or take the defaults where there is none."""
    if path is None:
        return Settings()
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the settings file {path}: {error}") from None
    return from_toml(text, str(path))
