"""Compiled programs, as text: what one iteration of a loop launches, moves and multiplies.

Read from XLA's optimised HLO. A kernel is an instruction outside of fusions; it reads its operands
and writes its result. Of an operand that it only slices or gathers from, the part it takes counts.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8} | {
    f"{letter}{bits}": bits // 8 for letter in "su" for bits in (8, 16, 32, 64)
}
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_BEGIN = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_OPERATION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_CALLED = re.compile(r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)")
_CALLED_LISTS = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
_TURNS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
# What costs nothing: names of what is there, or of what was begun before.
_FREE = re.compile(
    r"(parameter|constant|get-tuple-element|tuple|bitcast|after-all|partition-id|replica-id|.*-done)$"
)
_TAKES = {"dynamic-slice", "gather"}


@dataclasses.dataclass(frozen=True)
class Operation:
    """One line of a computation: `rest` is what stands after its operands."""

    name: str
    shape: str
    kind: str
    operands: tuple[str, ...]
    rest: str
    inside: str

    @property
    def called(self) -> list[str]:
        lists = ",".join(_CALLED_LISTS.findall(self.rest))
        return _CALLED.findall(self.rest) + re.findall(r"[\w.\-]+", lists)


@dataclasses.dataclass
class Cost:
    """What is launched: for each kernel its kind, bytes and FLOP, and how often."""

    kernels: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    @property
    def count(self) -> int:
        return sum(self.kernels.values())

    @property
    def bytes(self) -> float:
        return sum(moved * n for (_, moved, _), n in self.kernels.items())

    @property
    def flop(self) -> float:
        return sum(flop * n for (_, _, flop), n in self.kernels.items())

    def add(self, other: "Cost", times: int = 1) -> None:
        for kernel, n in other.kernels.items():
            self.kernels[kernel] += n * times

    def seconds(self, bytes_per_s: float, flop_per_s: float, launch_s: float) -> float:
        """Each kernel takes the longest of its launch, its bytes and its products."""
        return sum(
            n * max(launch_s, moved / bytes_per_s, flop / flop_per_s)
            for (_, moved, flop), n in self.kernels.items()
        )


class Program:
    """A compiled program."""

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Operation]] = {}
        current: dict[str, Operation] = {}
        for line in text.splitlines():
            if begin := not line.startswith(" ") and _BEGIN.match(line):
                current = self.computations.setdefault(begin[2], {})
                self.entry = begin[2] if begin[1] else getattr(self, "entry", "")
            elif found := _OPERATION.match(line):
                operation = _parsed(found[1], found[2])
                current[operation.name] = operation

    def loops(self) -> list[Cost]:
        """The cost of an iteration of every loop; the dearest in products first."""
        costs = [
            self.cost(operation.called[-1])
            for computation in self.computations.values()
            for operation in computation.values()
            if operation.kind == "while"
        ]
        return sorted(costs, key=lambda cost: -cost.flop)

    def cost(self, name: str) -> Cost:
        """What one run of a computation launches; loops in it as often as they iterate."""
        total = Cost()
        for operation in self.computations[name].values():
            if _FREE.match(operation.kind):
                continue
            called = [own for own in operation.called if own in self.computations]
            if operation.kind == "while":
                turns = _TURNS.search(operation.rest)
                body = re.search(r"body=%?([\w.\-]+)", operation.rest)
                assert body
                total.add(self.cost(body[1]), int(turns[1]) if turns else 1)
            elif operation.kind == "conditional":
                total.add(max(map(self.cost, called), key=lambda cost: cost.bytes))
            elif operation.kind in ("call", "async-start"):
                for own in called:
                    total.add(self.cost(own))
            else:
                moved = self._moved(name, operation)
                total.kernels[operation.kind, moved, self._flop(name, operation)] += 1
        return total

    def _shape(self, computation: str, operand: str) -> str:
        """Of an operand, which may be a part of a tuple (`NAME#3#0`)."""
        name, *parts = operand.split("#")
        found = self.computations[computation].get(name)
        shape = found.shape if found else ""
        for part in parts:
            shape = _elements(shape)[int(part)]
        return shape

    def _moved(self, name: str, operation: Operation) -> int:
        """Bytes that a kernel reads and writes."""
        body = next((c for c in operation.called if c in self.computations), "")
        fused = operation.kind == "fusion" and bool(body)
        if operation.kind == "dynamic-update-slice":  # in place
            return 2 * _size(self._shape(name, operation.operands[1]))
        taken = self._taken(body) if fused else {}
        written = _size(operation.shape)
        if fused and (update := self._updated(body)):
            written = update
        total = written
        for number, operand in enumerate(operation.operands):
            whole = _size(self._shape(name, operand))
            if operation.kind in _TAKES and number == 0:
                whole = written
            total += min(whole, taken.get(number, whole))
        return total

    @functools.cache  # noqa: B019 -- a program lives as long as what is asked of it
    def _taken(self, body: str) -> dict[int, int]:
        """Of parameters that a computation only slices or gathers from, the bytes that it takes."""
        found = {}
        for parameter in self.computations[body].values():
            if parameter.kind != "parameter":
                continue
            users = [
                own for own in self.computations[body].values() if parameter.name in own.operands
            ]
            partly = [
                own for own in users
                if own.operands[0] == parameter.name
                and (own.kind in _TAKES or own.kind == "dynamic-update-slice")
            ]  # fmt: skip
            if users and len(partly) == len(users):
                sizes = [
                    _size(self._shape(body, own.operands[1]))
                    if own.kind == "dynamic-update-slice" else _size(own.shape)
                    for own in partly
                ]  # fmt: skip
                found[int(parameter.rest.partition(")")[0] or 0)] = sum(sizes)
        return found

    @functools.cache  # noqa: B019
    def _updated(self, body: str) -> int:
        """Bytes that a fusion writes which only updates a slice in place; 0 for others."""
        root = [*self.computations[body].values()][-1]
        if root.kind != "dynamic-update-slice":
            return 0
        return _size(self._shape(body, root.operands[1]))

    def _flop(self, name: str, operation: Operation) -> float:
        """Of matrix products, in what the kernel calls as well."""
        inside = [own for own in operation.called if own in self.computations]
        return _products(operation, lambda operand: self._shape(name, operand)) + sum(
            self._flop(own, each) for own in inside for each in self.computations[own].values()
        )


def _parsed(name: str, text: str) -> Operation:
    """`SHAPE KIND(OPERANDS)REST`, where a shape may be a tuple of shapes."""
    end = _closing(text) + 1 if text.startswith("(") else text.index(" ")
    shape, text = text[:end], text[end:].strip()
    kind, _, text = text.partition("(")
    text = f"({text}"
    end = _closing(text)
    inside = text[1:end]
    operands = tuple(re.findall(r"%([\w.\-]+(?:#\d+)*)", inside))
    # The number of a parameter stands where others have operands.
    rest = f"{inside}){text[end + 1 :]}" if kind == "parameter" else text[end + 1 :]
    return Operation(name, shape, kind, operands, rest, inside)


def _closing(text: str) -> int:
    """Where the bracket that a text begins with is closed."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if not depth:
            return place
    return len(text) - 1


def _elements(shape: str) -> list[str]:
    """The shapes in a tuple of shapes."""
    found, text = [], re.sub(r"/\*.*?\*/", "", shape)[1:-1].strip()
    while text:
        end = _closing(text) if text.startswith("(") else text.index("]")
        found.append(text[: end + 1])
        rest = text[end + 1 :]
        text = (rest[_closing(rest) + 1 :] if rest.startswith("{") else rest).lstrip(", ")
    return found


def _arrays(shape: str) -> Iterator[tuple[str, list[int]]]:
    for kind, dims in _ARRAY.findall(shape):
        if kind in _BYTES:
            yield kind, [int(n) for n in dims.split(",") if n]


def _size(shape: str) -> int:
    return sum(_BYTES[kind] * math.prod(dims) for kind, dims in _arrays(shape))


def _products(operation: Operation, shape_of) -> float:
    """FLOP of one matrix product: of `dot`, of cuBLAS, of a TPU's `convolution`; 0 of all else."""
    blas = operation.kind == "custom-call" and "__cublas" in operation.rest
    if operation.kind != "dot" and operation.kind != "convolution" and not blas:
        return 0.0
    out = math.prod(next(_arrays(operation.shape))[1])
    left, right = (next(_arrays(shape_of(name)))[1] for name in operation.operands[:2])
    if operation.kind == "convolution":
        # Every output takes all of the kernel but its output features; batches of products are
        # written as a dilated spatial dimension of which each output sees one place.
        labels = re.search(r"dim_labels=(\w+)_(\w+)->", operation.rest)
        window = re.search(r"window=\{([^}]*)\}", operation.rest)
        assert labels
        taken = math.prod(right) / right[labels[2].index("o")]
        fields = dict(part.split("=") for part in window[1].split()) if window else {}
        dilated = fields.get("lhs_dilate", "").split("x")
        sizes = fields.get("size", "").split("x")
        for size, dilate in zip(sizes, dilated, strict=False):
            taken /= int(size) if dilate.isdigit() and int(dilate) > 1 else 1
        return 2.0 * out * taken
    contracting = re.search(r'lhs_contracting_dim(?:s=\{|ensions":\[)([^}\]]*)', operation.rest)
    dims = re.findall(r"\d+", contracting[1]) if contracting else []
    return 2.0 * out * math.prod(left[int(dim)] for dim in dims)
