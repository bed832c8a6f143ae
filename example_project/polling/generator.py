"""A made-up electoral register, the same for the same seed.

A country that writes two scripts, as several do; centres from a mountain village to a town hall.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

from polling.sizes import LARGEST, divides_well

VOTERS_PER_CENTRE = 625  # on average: 16 centres make 10,000 voters, 2,000 make a national register of 1,250,000
FIRST_NUMBER = 1_000_001  # seven digits, whatever the size of the register


class Row(NamedTuple):
    """A line of the CSV, and its header."""

    number: int
    family_name: str
    given_name: str
    centre_code: str
    centre_name: str


def _words(text: str) -> list[str]:
    return text.split()


LATIN = (
    _words(
        "Babić Čolić Ćosić Dvořák Đorđević Fuchs Horváth Ibrahimović Jovanović Kovačević Łukasik Müller Németh "
        "O'Brien Öztürk Petrović Rădulescu Šimić Șerban Țurcanu Vuković Žižka"
    ),
    _words(
        "Ana Áron Boško Čedomir Đurđica Élise Goran Hana Ilinca Jelena Łucja Marko Nađa Ömer Petra Ružica Stefan "
        "Șerban Tímea Vesna Zoë Željko"
    ),
)
CYRILLIC = (
    _words(
        "Анђелковић Богдановић Васић Гавриловић Дојчиновић Ђорђевић Живковић Зеленовић Илић Јовановић Крстић "
        "Љубичић Марковић Николић Његован Обрадовић Петровић Радић Стојановић Тошић Ћирић Урошевић Филиповић "
        "Хаџић Цветковић Чолић Џелатовић Шћепановић"
    ),
    _words(
        "Ана Бојан Весна Горан Душан Ђорђе Елена Живка Зоран Ивана Јелена Катарина Љиљана Милош Наташа Његош "
        "Огњен Петар Ружица Снежана Тијана Ћирило Урош Филип Христина Цвета Џана Шана"
    ),
)
BUILDINGS = ("Town Hall", "Primary School", "Library", "Fire Station", "Дом културе", "Основна школа", "Пошта")
PLACES = ("Brod", "Gornja Lúka", "Šumice", "Lipnica", "Велика Плана", "Ћићевац", "Љубовија", "Novo Selo", "Житиште")


def generate(path: Path, *, voters: int, centres: int, seed: int) -> None:
    """Write the register to ``path``, shuffled as registers are: neighbours do not register one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows(_rows(voters, centres, Random(seed)))


def read(path: Path) -> Iterator[Row]:
    """The rows of a register, one at a time: a national one need not fit into memory."""
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield Row(**(row | {"number": int(row["number"])}))


def _rows(voters: int, centres: int, random: Random) -> Iterator[Row]:
    width = len(str(centres))
    homes: list[int] = []
    names = [f"{random.choice(BUILDINGS)}, {random.choice(PLACES)}" for _ in range(centres)]
    for centre, size in enumerate(centre_sizes(voters, centres, random)):
        homes += [centre] * size
    random.shuffle(homes)
    for number, centre in enumerate(homes, FIRST_NUMBER):
        family_names, given_names = random.choice((LATIN, CYRILLIC))
        family_name = "-".join(random.sample(family_names, random.choice((1, 1, 2))))
        given_name = " ".join(random.sample(given_names, random.choice((1, 2, 2))))
        yield Row(number, family_name, given_name, f"C{centre + 1:0{width}}", names[centre])


def centre_sizes(voters: int, centres: int, random: Random) -> list[int]:
    """Very different sizes that add up to ``voters``; each divides well into stations, where that can be had."""
    if voters < centres:
        raise ValueError(f"{voters} voters cannot fill {centres} centres: each has at least one voter.")
    weights = [random.lognormvariate(0, 1.2) for _ in range(centres)]
    spare = voters - centres
    sizes = [1 + int(spare * weight / sum(weights)) for weight in weights]
    for index, size in enumerate(sizes):
        while not divides_well(size):
            size -= 1
        sizes[index] = size
    # What rounding left over goes where it fits; whoever it fits nowhere goes to the largest centre.
    left = voters - sum(sizes)
    for index, size in enumerate(sizes):
        more = min(left, -size % LARGEST)
        if divides_well(size + more):
            sizes[index] += more
            left -= more
    sizes[sizes.index(max(sizes))] += left
    return sizes
