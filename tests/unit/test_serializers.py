"""The serializer: what a task receives equals what was passed, and stored text can do nothing but be read."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import sys
import types
from collections import Counter, OrderedDict, defaultdict, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from django_taskq import serializers
from django_taskq.exceptions import EnqueueError, SerializationError
from django_taskq.serializers import MAX_DEPTH, TAG, dumps, loads, register_type
from tests.testapp.models import Effect


class Colour(enum.Enum):
    RED = "r"
    ALIAS = "r"


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


class Ratio(float, enum.Enum):
    HALF = 0.5


class Price(Decimal, enum.Enum):
    ONE = Decimal("1.10")


class Day(date, enum.Enum):
    FIRST = 2026, 1, 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.5
    sum: float = dataclasses.field(init=False, default=0)

    class Unit(enum.Enum):
        METRE = 1


@dataclasses.dataclass(frozen=True)
class Line:
    points: tuple[Point, ...]


class Pair(NamedTuple):
    left: int
    right: Any


OldPair = namedtuple("OldPair", "left right")
_Hidden = enum.Enum("_Hidden", "A")


class NumpyLikeFloat(float):
    def __repr__(self) -> str:
        return f"lib.float64({float(self)})"


def round_trip(value: Any) -> Any:
    return loads(dumps(value))


RIGA = ZoneInfo("Europe/Riga")
VALUES = [
    None, True, 0, -1, 2**200, 0.1, -0.0, 1e308, "", "text", 'quotes " and \\', "\x00 \x1f", "žāļā 漢字 🎉", [], {},
    [1, [2, [3]]], {"a": {"b": [None]}}, (), (1, 2), (1, (2,)), [(1,), [1]], {"k": (1,)},
    set(), {1, "a", (1, 2)}, frozenset({1}), {frozenset({1})}, b"", b"\x00\xff", math.inf, -math.inf,
    {1: "int", None: "none", (1, 2): "tuple", "s": 1}, {True: 1}, {1.5: 2}, {TAG: "set", "v": [1]}, {TAG: {TAG: 1}},
    datetime(2026, 1, 2, 3, 4, 5, 6), datetime(2026, 1, 2, tzinfo=UTC),  # noqa: DTZ001 - naive ones travel too
    datetime(2026, 7, 2, 3, tzinfo=timezone(timedelta(hours=5, minutes=30))), datetime.min, datetime.max,  # noqa: DTZ901
    date(2026, 1, 2), time(1, 2, 3, 4), time(1, tzinfo=UTC), timedelta(days=-1, microseconds=1), timedelta.max,
    Decimal("1.10"), Decimal("Infinity"), Decimal("1E+5"), UUID(int=5), Path("/a/b"), PurePosixPath("a/ä"),
    PureWindowsPath("c:\\x"), Colour.RED, Colour.ALIAS, Level.LOW, Word.YES, Ratio.HALF, Price.ONE, Day.FIRST,
    Access.READ, Access.READ | Access.WRITE, Access(0), Point.Unit.METRE, Point(1), Line((Point(1, 2.0),)),
    Pair(1, (2, {3})), OldPair(1, 2), {"deep": [{1: {(2,): b"3"}}]},
]  # fmt: skip


class TestRoundTrip:
    @pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
    def test_value_and_type_come_back(self, value: Any) -> None:
        found = round_trip(value)
        assert found == value
        assert type(found) is type(value)
        if not isinstance(value, (set, frozenset)):  # which may list their members in another order
            assert repr(found) == repr(value)

    def test_not_a_number_and_the_sign_of_zero(self) -> None:
        assert math.isnan(round_trip(math.nan))
        assert round_trip(Decimal("NaN")).is_nan()
        assert math.copysign(1, round_trip(-0.0)) == -1

    def test_the_text_is_strict_json(self) -> None:
        json.loads(dumps([math.nan, math.inf]), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    def test_plain_values_stand_for_themselves(self) -> None:
        assert dumps({"a": [1, 2.5, None, True, "ä"]}) == '{"a":[1,2.5,null,true,"ä"]}'

    def test_a_named_zone_keeps_its_moment(self) -> None:
        for fold in (0, 1):
            moment = datetime(2026, 10, 25, 3, 30, tzinfo=RIGA, fold=fold)
            assert round_trip(moment).timestamp() == moment.timestamp()

    def test_lazy_and_safe_strings_become_plain_ones(self) -> None:
        for value in (gettext_lazy("Yes"), mark_safe("Yes")):
            assert type(round_trip(value)) is str
            assert round_trip([{"k": value}]) == [{"k": "Yes"}]

    def test_subclasses_travel_as_what_they_are_made_of(self) -> None:
        class Names(list):
            pass

        assert round_trip(OrderedDict(ab=1, cd=2)) == {"ab": 1, "cd": 2}
        assert round_trip(defaultdict(list, ab=[1])) == {"ab": [1]}
        assert round_trip(Counter("aab")) == {"a": 2, "b": 1}
        assert round_trip(OrderedDict()) == {}
        assert round_trip(Names(["a"])) == ["a"]

    def test_floats_with_a_text_of_their_own(self) -> None:
        assert round_trip(NumpyLikeFloat(1.5)) == 1.5
        assert round_trip(NumpyLikeFloat("inf")) == math.inf


keys = st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.just(TAG), st.tuples(st.integers(), st.text()))
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(), st.decimals(allow_nan=False), st.dates(), st.times(), st.timedeltas(), st.uuids(),
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-3, minutes=-30))])), st.datetimes(),
    st.sampled_from(list(Level) + list(Colour) + list(Ratio) + list(Access)),
)  # fmt: skip
clean_keys = keys.filter(lambda key: not isinstance(key, (str, tuple)) or dumps_safely(key))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(clean_keys, inner, max_size=4),
        st.frozensets(st.one_of(st.integers(), st.binary()), max_size=4),
        st.builds(Point, st.integers(), st.floats(allow_nan=False)),
        st.builds(Pair, st.integers(), inner),
    ),
    max_leaves=15,
)


def dumps_safely(value: Any) -> bool:
    try:
        return bool(dumps(value))
    except SerializationError:
        return False


class TestProperties:
    @given(values)
    def test_what_is_written_is_read_back(self, value: Any) -> None:
        found = round_trip(value)
        assert found == value
        assert type(found) is type(value)

    @given(st.text(max_size=200))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        try:
            loads(text)
        except SerializationError:
            pass

    @given(st.recursive(st.none() | st.text(max_size=5) | st.integers(), lambda inner: st.lists(inner, max_size=3)))
    def test_any_tagged_value_is_read_or_refused(self, value: Any) -> None:
        for tag in [*serializers._decoders, value]:
            try:
                loads(json.dumps({TAG: tag, "v": value}))
            except SerializationError:
                pass


class TestRefusal:
    """Every refusal is an ``EnqueueError`` that says what to do instead."""

    def test_a_model_instance(self) -> None:
        with pytest.raises(EnqueueError, match=r"model instance \(Effect\).*primary key"):
            dumps([Effect(name="x")])

    def test_a_lazy_model_instance_such_as_request_user(self) -> None:
        with pytest.raises(SerializationError, match="model instance.*primary key"):
            dumps(SimpleLazyObject(User))

    def test_a_queryset(self) -> None:
        with pytest.raises(SerializationError, match="QuerySet.*list of primary keys"):
            dumps({"effects": Effect.objects.all()})

    @pytest.mark.parametrize(
        "value",
        [object(), print, int, range(3), iter([]), {}.keys(), 1j, sys],
        ids=["object", "function", "class", "range", "iterator", "view", "complex", "module"],
    )
    def test_anything_else_names_its_type_and_the_way_out(self, value: Any) -> None:
        with pytest.raises(SerializationError, match=rf"{type(value).__qualname__}.*register_type"):
            dumps([value])

    @pytest.mark.parametrize("value", ["\ud800", ["a\udfff"], {"\ud800": 1}], ids=ascii)
    def test_lone_surrogates(self, value: Any) -> None:
        with pytest.raises(SerializationError, match="surrogates"):
            dumps(value)

    def test_a_number_longer_than_python_writes(self) -> None:
        with pytest.raises(SerializationError, match="4300 digits"):
            dumps(10**5000)

    @pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"k": v}, lambda v: (v,), lambda v: {1: v}])
    def test_too_deep(self, wrap: Any) -> None:
        value: Any = 1
        for _ in range(MAX_DEPTH + 1):
            value = wrap(value)
        with pytest.raises(SerializationError, match="levels deep"):
            dumps(value)

    def test_the_deepest_that_is_written_is_read(self) -> None:
        value: Any = 1
        for _ in range(MAX_DEPTH):
            value = [value]
        assert round_trip(value) == value

    def test_a_circle(self) -> None:
        value: list[Any] = []
        value.append(value)
        with pytest.raises(SerializationError, match="levels deep"):
            dumps(value)

    def test_classes_no_worker_could_find_again(self) -> None:
        """An enum or dataclass inside a function, or a private one: the error belongs to the caller."""

        class Local(enum.Enum):
            A = 1

        @dataclasses.dataclass
        class LocalPoint:
            x: int

        for value in (Local.A, LocalPoint(1), _Hidden.A):
            with pytest.raises(SerializationError, match=type(value).__qualname__.rpartition(".")[2]):
                dumps(value)


class TestReading:
    @pytest.mark.parametrize(
        "text",
        ["", "{", "nul", "[" * 200_000, '{"a":' * 200_000, '{"__taskq__":"unknown","v":1}', '{"__taskq__":"set"}',
         '{"__taskq__":[],"v":1}', '{"__taskq__":{},"v":1}', '{"__taskq__":null,"v":1}', '{"__taskq__":"set","v":[[]]}',
         '{"__taskq__":"set","v":5}', '{"__taskq__":"dict","v":[[1]]}', '{"__taskq__":"dict","v":[[[],1]]}',
         '{"__taskq__":"float","v":"x"}', '{"__taskq__":"decimal","v":"x"}', '{"__taskq__":"uuid","v":"x"}',
         '{"__taskq__":"uuid","v":5}', '{"__taskq__":"datetime","v":"x"}', '{"__taskq__":"datetime","v":5}',
         '{"__taskq__":"timedelta","v":[1e300,0,0]}', '{"__taskq__":"timedelta","v":[]}', '{"__taskq__":"bytes","v":5}',
         '{"__taskq__":"bytes","v":"x"}', '{"__taskq__":"path","v":["x","/"]}', '{"__taskq__":"path","v":[]}',
         "1" * 5000],
        ids=lambda text: ascii(text[:45]),
    )  # fmt: skip
    def test_text_that_is_not_of_our_making_is_refused(self, text: str) -> None:
        with pytest.raises(SerializationError, match=r"cannot be read|is not registered"):
            loads(text)

    def test_an_unknown_tag_is_named(self) -> None:
        with pytest.raises(SerializationError, match="'money'"):
            loads('{"__taskq__":"money","v":1}')


class TestClassPaths:
    """A class named in stored text is only ever looked up: nothing is imported, called or reached into."""

    @pytest.mark.parametrize("tag", ["enum", "dataclass", "namedtuple"])
    @pytest.mark.parametrize(
        "path",
        ["os:system", "os", "", ":", "os:", ":system", "builtins:eval", "builtins:int", "subprocess:Popen",
         f"{__name__}:_Hidden", f"{__name__}:Point.__init__", f"{__name__}:Point.Unit.__class__", f"{__name__}:Nobody",
         f"{__name__}:TestClassPaths", "django.contrib.auth.models:User", 5, None, ["os"]],
        ids=str,
    )  # fmt: skip
    def test_what_is_no_such_class_is_refused(self, tag: str, path: Any) -> None:
        for state in ([], {}, "A"):
            with pytest.raises(SerializationError):
                loads(json.dumps({TAG: tag, "v": [path, state]}))

    def test_nothing_is_imported(self) -> None:
        assert "this" not in sys.modules
        with pytest.raises(SerializationError, match="not loaded"):
            loads('{"__taskq__":"enum","v":["this:Zen","A"]}')
        assert "this" not in sys.modules

    def test_a_module_s_own_getattr_is_not_called(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Packages import lazily that way, ``concurrent.futures`` among them."""
        lazy = types.ModuleType("lazy_module")
        asked: list[str] = []
        lazy.__getattr__ = asked.append  # type: ignore[method-assign]
        monkeypatch.setitem(sys.modules, "lazy_module", lazy)
        with pytest.raises(SerializationError):
            loads('{"__taskq__":"enum","v":["lazy_module:Colour","RED"]}')
        assert asked == []

    def test_an_enum_has_its_members_only(self) -> None:
        for name in ("_generate_next_value_", "mro", "__class__", "BLUE", None):
            with pytest.raises(SerializationError):
                loads(json.dumps({TAG: "enum", "v": [f"{__name__}:Colour", name]}))

    def test_a_dataclass_has_its_fields_only(self) -> None:
        with pytest.raises(SerializationError):
            loads(json.dumps({TAG: "dataclass", "v": [f"{__name__}:Point", {"x": 1, "z": 2}]}))


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


class Euro(Money):
    pass


class TestRegisterType:
    @pytest.fixture(autouse=True)
    def own_types(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(serializers, "_encoders", dict(serializers._encoders))
        monkeypatch.setattr(serializers, "_decoders", dict(serializers._decoders))

    def test_teaches_a_type_and_its_subclasses(self) -> None:
        register_type(Money, "money", lambda value: (value.cents, Decimal(1)), lambda parts: Money(parts[0]))
        assert [type(found).__name__ for found in round_trip([Money(5), Euro(6)])] == ["Money", "Money"]
        assert round_trip({"k": Euro(6)})["k"].cents == 6

    def test_may_be_repeated(self) -> None:
        for _ in range(2):
            register_type(Money, "money", lambda value: value.cents, Money)
        assert round_trip(Money(5)).cents == 5

    @pytest.mark.parametrize("tag", ["decimal", "enum", "dataclass", "namedtuple", "dict"])
    def test_refuses_a_tag_that_is_taken(self, tag: str) -> None:
        with pytest.raises(ValueError, match=rf"'{tag}' is taken.*Money"):
            register_type(Money, tag, lambda value: value.cents, Money)

    def test_an_encoder_of_something_unknown_is_refused_at_enqueue(self) -> None:
        register_type(Money, "money", lambda value: object(), Money)
        with pytest.raises(SerializationError, match="builtins.object"):
            dumps(Money(1))
