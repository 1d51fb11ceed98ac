"""The wire: what requests and answers look like, with an example of each.

These models say nothing of storage, and check only what needs no database. One module per subject;
from outside, all of them are `schemas.<name>`.
"""

# ruff: noqa: I001 - it would import each name in a statement of its own

from __future__ import annotations

from api.schemas.catalogue import (
    TOLD as TOLD,
    AuthorityDetail as AuthorityDetail,
    AuthorityFilter as AuthorityFilter,
    AuthorityOut as AuthorityOut,
    AuthorityPage as AuthorityPage,
    CategoryList as CategoryList,
    CategoryOut as CategoryOut,
    ChoiceOut as ChoiceOut,
    Code as Code,
    DatasetOut as DatasetOut,
    EmergencyOut as EmergencyOut,
    LayerOut as LayerOut,
    QuestionOut as QuestionOut,
    SourceOut as SourceOut,
    Where as Where,
    origins_of as origins_of,
)
from api.schemas.certificates import (
    Certificate as Certificate,
    SigningKey as SigningKey,
    SigningKeys as SigningKeys,
)
from api.schemas.decisions import (
    AuthorityRef as AuthorityRef,
    CandidateOut as CandidateOut,
    DecisionOut as DecisionOut,
    Place as Place,
)
from api.schemas.deliveries import (
    AttemptOut as AttemptOut,
    DeliveryFilter as DeliveryFilter,
    DeliveryOut as DeliveryOut,
    DeliveryPage as DeliveryPage,
    DeliveryState as DeliveryState,
    EndpointHealth as EndpointHealth,
    Outcome as Outcome,
    Redelivered as Redelivered,
    RedeliverIn as RedeliverIn,
)
from api.schemas.endpoints import (
    AttributeValue as AttributeValue,
    BlackholeIn as BlackholeIn,
    EndpointChange as EndpointChange,
    EndpointCreated as EndpointCreated,
    EndpointIn as EndpointIn,
    EndpointList as EndpointList,
    EndpointOut as EndpointOut,
    EndpointRotated as EndpointRotated,
    Fallback as Fallback,
    HttpsAddress as HttpsAddress,
    MailIn as MailIn,
    MessageType as MessageType,
    NoConfig as NoConfig,
    Open311Config as Open311Config,
    Open311ConfigIn as Open311ConfigIn,
    Open311ConfigChange as Open311ConfigChange,
    Open311In as Open311In,
    ProbeOut as ProbeOut,
    RotateIn as RotateIn,
    ServiceCode as ServiceCode,
    VerifyIn as VerifyIn,
    WebhookIn as WebhookIn,
)
from api.schemas.operations import (
    AuditOut as AuditOut,
    AuditPage as AuditPage,
    Check as Check,
    Health as Health,
    NoticeOut as NoticeOut,
    NoticePage as NoticePage,
    Readiness as Readiness,
)
from api.schemas.photos import (
    PhotoHint as PhotoHint,
    PhotoIn as PhotoIn,
    PhotoOut as PhotoOut,
    PhotoTaken as PhotoTaken,
    UploadOut as UploadOut,
)
from api.schemas.public import (
    Feature as Feature,
    Near as Near,
    Nearby as Nearby,
    NearbyReport as NearbyReport,
    Point as Point,
    PublicReport as PublicReport,
    ReportCollection as ReportCollection,
    ReportFilter as ReportFilter,
)
from api.schemas.reports import (
    MOST_PHOTOS as MOST_PHOTOS,
    Answer as Answer,
    AnswerIn as AnswerIn,
    AssignIn as AssignIn,
    BatchIn as BatchIn,
    BatchItem as BatchItem,
    BatchOut as BatchOut,
    HideIn as HideIn,
    ClosedReason as ClosedReason,
    Contact as Contact,
    DraftIn as DraftIn,
    EmergencyNow as EmergencyNow,
    EventKind as EventKind,
    EventOut as EventOut,
    Links as Links,
    Posted as Posted,
    Problem as Problem,
    QuestionCode as QuestionCode,
    Receipt as Receipt,
    ReportDelivery as ReportDelivery,
    ReportIn as ReportIn,
    ReportOut as ReportOut,
    TriageItem as TriageItem,
    TriagePage as TriagePage,
    UpdateIn as UpdateIn,
    attempt_in_words as attempt_in_words,
)
from api.schemas.tracking import (
    Events as Events,
    MailState as MailState,
    Since as Since,
    Track as Track,
    TrackAuthority as TrackAuthority,
    TrackEvent as TrackEvent,
    TrackEvents as TrackEvents,
    TrackLinks as TrackLinks,
)
from api.schemas.wire import (
    RFC3339 as RFC3339,
    Accuracy as Accuracy,
    Asked as Asked,
    CategoryCode as CategoryCode,
    Chosen as Chosen,
    Latitude as Latitude,
    Longitude as Longitude,
    Name as Name,
    Page as Page,
    RoadRef as RoadRef,
    Time as Time,
    UpdateState as UpdateState,
    Wire as Wire,
)
