"""What there is: categories with their questions, authorities, and the dataset in force."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import Field, model_validator

from api import examples
from api.schemas.wire import Asked, Page, Time, Wire, shown
from georouter.model import AnswerType, Category, Emergency, Question
from georouter.questions import answers_schema, emergency_schema


class AuthorityFilter(Page):
    """Which authorities."""

    code: Annotated[
        str | None,
        Field(
            max_length=64,
            pattern="^[!-~]+$",
            description="Only the one with this code.",
            examples=["D06000001"],
        ),
    ] = None


class Where(Asked):
    """A place to list the categories for; both or neither."""

    lon: Annotated[float | None, Field(ge=-180, le=180, allow_inf_nan=False, examples=[2.12])] = (
        None
    )
    lat: Annotated[float | None, Field(ge=-90, le=90, allow_inf_nan=False, examples=[54.71])] = None

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.lon is None) != (self.lat is None):
            raise ValueError("lon and lat go together; send both, or neither")
        return self


class EmergencyOut(Wire):
    """What must be done at once beside reporting, and the number to call."""

    text: str
    phone: str
    when: Annotated[
        dict[str, Any] | bool,
        Field(description="JSON Schema (2020-12) of the `answers` with which it is one."),
    ]


class ChoiceOut(Wire):
    """An answer to choose: what to send, and what to show."""

    value: str
    label: str


class QuestionOut(Wire):
    """Something to ask about a defect. What its type has no use for is null, or empty."""

    code: str
    ask: str
    type: AnswerType
    required: bool
    unit: str | None
    least: Annotated[float | None, Field(description="Of a number, inclusive.")]
    most: Annotated[float | None, Field(description="Of a number, inclusive.")]
    choices: list[ChoiceOut]

    @classmethod
    def of(cls, question: Question) -> Self:
        """As the rules have it."""
        least, most = question.bounds or (None, None)
        return cls(
            code=question.code,
            ask=question.ask,
            type=question.type,
            required=question.required,
            unit=question.unit or None,
            least=least,
            most=most,
            choices=[ChoiceOut(value=code, label=text) for code, text in question.choices.items()],
        )


class CategoryOut(Wire):
    """Something that can be reported, in words for a citizen."""

    code: str
    name: str
    description: str
    tier: Annotated[str, Field(description="Who answers for it: a group of categories.")]
    questions: list[QuestionOut]
    answers_schema: Annotated[
        dict[str, Any],
        Field(description="JSON Schema (2020-12) of a report's `answers`, to make a form of."),
    ]
    emergencies: Annotated[
        list[EmergencyOut],
        Field(description="Show those whose `when` the answers fit, before anything is sent."),
    ]

    @classmethod
    def of(cls, category: Category, emergencies: Iterable[Emergency]) -> Self:
        """As the rules have it; `emergencies` are those whose number is answered there."""
        return cls(
            code=category.code,
            name=category.name,
            description=category.description,
            tier=category.tier.name,
            questions=[QuestionOut.of(question) for question in category.questions],
            answers_schema=answers_schema(category),
            emergencies=[
                EmergencyOut(text=one.text, phone=one.phone, when=when)
                for one in emergencies
                if (when := emergency_schema(one, category.code)) is not False
            ],
        )


class CategoryList(Wire):
    """What can be reported, as the rules of this version have it."""

    model_config = shown(examples.CATEGORY_LIST)

    version: str
    items: list[CategoryOut]


class Code(Wire):
    """An external label of an authority."""

    scheme: str
    code: str


class AuthorityOut(Wire):
    """A public body that reports are routed to."""

    id: UUID
    name: str
    codes: list[Code]
    has_active_endpoint: bool


class AuthorityDetail(AuthorityOut):
    """One authority. `held` counts its waiting reports; only it and operators are told."""

    model_config = shown(examples.AUTHORITY_DETAIL)

    held: int | None = None


class AuthorityPage(Wire):
    """Authorities by name."""

    model_config = shown(examples.AUTHORITY_PAGE)

    items: list[AuthorityOut]
    next_cursor: str | None


class LayerOut(Wire):
    """One kind of areas in a dataset."""

    name: str
    areas: int


class SourceOut(Wire):
    """What a layer was made from. Null is what was not recorded when it was built."""

    layer: str
    title: str | None
    publisher: str | None
    edition: str | None
    licence: str | None
    attribution: Annotated[
        str | None, Field(description="To be shown wherever the boundaries are used.")
    ]


class DatasetOut(Wire):
    """The boundary dataset in force: the one that decisions name as `dataset`."""

    model_config = shown(examples.DATASET)

    version: str
    since: Annotated[Time, Field(description="When it came into force.")]
    layers: list[LayerOut]
    sources: list[SourceOut]

    @classmethod
    def of(cls, version: str, since: datetime, manifest: Mapping[str, Any]) -> Self:
        """As its manifest has it."""
        layers = manifest.get("layers", [])
        return cls(
            version=version,
            since=since,
            layers=[LayerOut(name=layer["name"], areas=layer["areas"]) for layer in layers],
            sources=[
                SourceOut(layer=layer["name"], **{name: origin.get(name) for name in TOLD})
                for layer in layers
                for origin in origins_of(layer)
            ],
        )


TOLD = ("title", "publisher", "edition", "licence", "attribution")
"""What is told of a source."""


def origins_of(layer: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Where a layer of a manifest comes from; a layer of roads has several sources."""
    if "source" in layer:
        yield layer["source"]
    yield from layer.get("sources", [])
