"""The example country "Doggerland" as drawn by hand: its planar graph, authorities and roads.

Answers what the country is like; `make` turns it into files. Nodes are letters, an arc is two
letters, and a polygon is a walk over nodes. All of it is invented and lies in the North Sea.

                               #####L#
     #k##                 A#####    .#####   #B########
    ##  m         ########.         ..   #####.       ###
     l###    #######      ..        ..    ##...        ###
             #            ..        .       ..      d... ##
             ##           ..       ..       ..    ...  f ###        ####
              ##           ..      .        ..     .e ..   #       h# ##j
            ###            ..      .         ..      ..    ##     ##   ##
          ###             ..       .          ..           ##      ######
         ###             ........ ..      .....N...         ##       i
           ##        ...G...    ..J..   ...       .    ......C
            ##    ....   ..         .O...   .     .. ...     ###
            F......      .         ...  .a....    .P..         ###
            ##           ..        ..   ..b .c    .              ##
            ##            .       ..K     ...     .             ##
           ##             I...  ... ..           ..           ###
            ##            .  ....    ....   ....Q.         ####
             ##########   ..            .S...   ...       ##
                     #    ..             .        ...     ##
                     ###    .           ..          ..    ##
                      ####  .           ..    ####   .#####
                       #####E            ..  ## #####D#
                            ####       ##M.###
                               #########

A to M stand on the coast; at G four authorities meet; abc is the enclave, def the exclave, hij the
island, klm the islet.
"""

from __future__ import annotations

from dataclasses import dataclass

Place = tuple[float, float]  # longitude, latitude in degrees

NODES: dict[str, Place] = {
    "A": (2.05, 55.05),
    "L": (2.30, 55.09),
    "B": (2.52, 55.05),
    "C": (2.87, 54.80),
    "D": (2.68, 54.45),
    "M": (2.42, 54.42),
    "E": (2.10, 54.44),
    "F": (1.74, 54.72),
    "G": (2.02, 54.80),
    "J": (2.24, 54.79),
    "O": (2.31, 54.74),
    "K": (2.28, 54.66),
    "I": (2.05, 54.62),
    "N": (2.55, 54.83),
    "P": (2.64, 54.72),
    "Q": (2.58, 54.60),
    "S": (2.42, 54.58),
    "a": (2.42, 54.73),
    "b": (2.43, 54.68),
    "c": (2.51, 54.70),
    "d": (2.66, 54.96),
    "e": (2.66, 54.90),
    "f": (2.74, 54.93),
    "h": (3.02, 54.92),
    "i": (3.06, 54.83),
    "j": (3.13, 54.90),
    "k": (1.60, 55.06),
    "l": (1.57, 55.01),
    "m": (1.64, 55.02),
}

# Arcs on the sea, and arcs between authorities; the places are waypoints on the way.
COAST: dict[str, tuple[Place, ...]] = {
    "AL": ((2.17, 55.09),),
    "LB": ((2.42, 55.02),),
    "BC": ((2.66, 55.06), (2.80, 54.98), (2.84, 54.88)),
    "CD": ((2.93, 54.74), (2.98, 54.66), (2.84, 54.60), (2.82, 54.50)),
    "DM": ((2.56, 54.49),),
    "ME": ((2.28, 54.39),),
    "EF": ((1.98, 54.46), (1.96, 54.58), (1.80, 54.56), (1.70, 54.64)),
    "FA": ((1.66, 54.82), (1.78, 54.90), (1.76, 55.00), (1.92, 55.02)),
    "hi": ((3.00, 54.87),),
    "ij": ((3.12, 54.84),),
    "jh": ((3.08, 54.94),),
    "kl": ((1.56, 55.04),),
    "lm": ((1.61, 54.99),),
    "mk": ((1.63, 55.05),),
}
LAND: dict[str, tuple[Place, ...]] = {
    "AG": ((2.09, 54.92),),
    "GF": ((1.88, 54.74),),
    "GI": (),
    "GJ": ((2.12, 54.82),),
    "JL": ((2.29, 54.94),),
    "JO": (),
    "OK": (),
    "KI": ((2.17, 54.61),),
    "IE": ((2.09, 54.53),),
    "ON": ((2.42, 54.80),),
    "NB": ((2.49, 54.94),),
    "NP": ((2.62, 54.79),),
    "PC": ((2.75, 54.78),),
    "PQ": (),
    "QD": ((2.66, 54.53),),
    "QS": (),
    "SK": (),
    "SM": ((2.38, 54.50),),
    "ab": ((2.39, 54.70),),
    "bc": ((2.48, 54.67),),
    "ca": ((2.48, 54.74),),
    "de": ((2.63, 54.93),),
    "ef": ((2.71, 54.89),),
    "fd": ((2.71, 54.97),),
}


@dataclass(frozen=True, slots=True)
class Ground:
    """An authority and its polygons, each a walk over nodes: the shell, then after / each hole."""

    code: str
    name: str
    kind: str
    parts: tuple[str, ...]


COUNTY = Ground("D10000001", "Tuskshire", "county", ("ALBNPQDMEIKOJG/abc",))
DISTRICTS = (
    Ground("D07000001", "Upper Eelfen", "district", ("ALJG",)),
    Ground("D07000002", "Birchmarsh", "district", ("LBNOJ",)),
    Ground("D07000003", "Nine Meres", "district", ("NPQSKO/abc",)),
    Ground("D07000004", "Antler Vale", "district", ("QDMS",)),
    Ground("D07000005", "Peatholt", "district", ("SMEIK",)),
)
UNITARIES = (
    Ground("D06000001", "Hearthmere", "unitary", ("GJOKI",)),
    Ground("D06000002", "Grey Marram", "unitary", ("FAG", "klm")),
    Ground("D06000003", "Harpoon Bay", "unitary", ("GIEF",)),
    Ground("D06000004", "Cold Shoal", "unitary", ("BCPN/def",)),
    Ground("D06000005", "Elk Ness", "unitary", ("PCDQ", "def")),
    Ground("D06000006", "Flintmere", "unitary", ("abc",)),
    Ground("D06000007", "Lantern Holm", "unitary", ("hij",)),
)
LAYERS = {"highway": (*UNITARIES, COUNTY), "district": (*UNITARIES, *DISTRICTS)}
SHORES = ("ALBCDMEF", "hij", "klm")

TRUNK_OPERATOR = {"code": "D99000001", "name": "Doggerland Trunk Roads", "kind": "national"}
CITY_TRANSPORT = {"code": "D99000002", "name": "Transport for Hearthmere", "kind": "national"}
# D1 crosses from coast to coast through four authorities and the enclave; D2 lies, for the middle
# half of the arc QP, exactly on the border of Elk Ness and Tuskshire.
TRUNK_WEST_EAST: tuple[Place, ...] = (
    (1.735, 54.645),
    (1.84, 54.65),
    (1.98, 54.68),
    (2.15, 54.70),
    (2.45, 54.70),
    (2.60, 54.67),
    (2.78, 54.69),
    (2.955, 54.695),
)
TRUNK_SOUTH: tuple[Place, ...] = ((2.56, 54.52), (2.57, 54.57))
TRUNK_NORTH: tuple[Place, ...] = ((2.66, 54.76), (2.64, 54.86), (2.60, 55.00))
STREETS: dict[str, tuple[Place, ...]] = {
    "R1": ((2.08, 54.735), (2.14, 54.73), (2.22, 54.745)),
    "R2": ((2.13, 54.77), (2.15, 54.72), (2.16, 54.66)),
}

# Where the answer is known by looking at the map: the authority of the district layer, or "" for
# the sea, and what the point is good for.
GOLDEN_PLACES: tuple[tuple[float, float, str, str], ...] = (
    (2.12, 54.71, "Hearthmere", "the city"),
    (2.15, 54.72, "Hearthmere", "on red route R2"),
    (2.045, 54.797, "Hearthmere", "south-east of the point where four meet"),
    (1.9, 54.89, "Grey Marram", "inland"),
    (2.0, 54.81, "Grey Marram", "north-west of the point where four meet"),
    (1.6, 55.02, "Grey Marram", "the islet"),
    (1.85, 54.62, "Harpoon Bay", "inland"),
    (2.02, 54.785, "Harpoon Bay", "south-west of the point where four meet"),
    (1.98, 54.68, "Harpoon Bay", "on trunk road D1"),
    (2.0505, 54.59, "Harpoon Bay", "100 m west of Peatholt"),
    (2.58, 54.9, "Cold Shoal", "inland"),
    (2.75, 54.96, "Cold Shoal", "between the exclave of Elk Ness and the sea"),
    (2.4895, 54.95, "Cold Shoal", "100 m east of Birchmarsh"),
    (2.78, 54.64, "Elk Ness", "inland"),
    (2.7, 54.93, "Elk Ness", "the exclave inside Cold Shoal"),
    (2.46, 54.71, "Flintmere", "the enclave"),
    (2.403, 54.7, "Flintmere", "the enclave, inside its western border"),
    (3.07, 54.88, "Lantern Holm", "the island"),
    (2.18, 54.95, "Upper Eelfen", "inland"),
    (2.065, 54.825, "Upper Eelfen", "north-east of the point where four meet"),
    (2.2615, 54.9, "Upper Eelfen", "100 m west of Birchmarsh, in the same county"),
    (2.4, 54.92, "Birchmarsh", "inland"),
    (2.4865, 54.95, "Birchmarsh", "100 m west of Cold Shoal"),
    (2.5, 54.64, "Nine Meres", "inland"),
    (2.38, 54.7, "Nine Meres", "west of the enclave"),
    (2.52, 54.54, "Antler Vale", "inland"),
    (2.25, 54.53, "Peatholt", "inland"),
    (2.0545, 54.59, "Peatholt", "100 m east of Harpoon Bay"),
    (1.87, 54.54, "", "the bay that Harpoon Bay is named for"),
    (2.842, 54.9, "", "off the shore of Cold Shoal"),
    (2.95, 54.88, "", "the strait before Lantern Holm"),
    (1.52, 54.32, "", "the open sea"),
)
