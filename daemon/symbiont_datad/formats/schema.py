"""What is in a context and in an archive, as types: the documents that the runtime reads and writes as JSON.

Read in Symbiont 1.19.0: `context/types.rs` and, for archives, `context/manager.rs`. Unknown fields are ignored there,
and so they are here. There are two sets, because one version's types are not those of every version:

* `AgentContext` and `ArchivedContext` are exact: what they refuse, that version does not load. What is written goes by
  them.
* `AnyContext` and `AnyArchive` have what makes a document a context at all: the outer fields, and the kind of value in
  each. What they refuse is damaged. The rest may be a newer version's way, and is passed over as it stands.
"""

from functools import lru_cache
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, ValidationError, field, json

U32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Seconds = Annotated[int, Meta(ge=0, le=2**63 - 5)]
"""What a point in time can have with so many nanoseconds to come."""
Texts = dict[str, str]
Values = dict[str, Raw]
"""Any JSON by name (`serde_json::Value`)."""


class AnyTime(Struct, gc=False):
    """A point in time, as any version may write it."""

    secs_since_epoch: Annotated[int, Meta(ge=0)]
    nanos_since_epoch: Annotated[int, Meta(ge=0)]

    @property
    def seconds(self) -> float:
        """Seconds since the epoch."""
        return self.secs_since_epoch + self.nanos_since_epoch / 1e9


class SystemTime(AnyTime, gc=False, forbid_unknown_fields=True):
    """A point in time, as serde reads and writes `std::time::SystemTime`: here alone it minds fields that it doesn't
    know.
    """

    secs_since_epoch: Seconds
    nanos_since_epoch: U32


class Duration(Struct, gc=False, forbid_unknown_fields=True):
    """A time span, as serde reads and writes `std::time::Duration`."""

    secs: Seconds
    nanos: U32


class WorkingMemory(Struct, gc=False):
    """What the agent is at just now."""

    variables: Values
    active_goals: list[str]
    attention_focus: list[str]
    current_context: str | None = None


class MemoryItem(Struct, gc=False):
    """One memory."""

    id: UUID
    content: str
    memory_type: Literal["Factual", "Procedural", "Episodic", "Semantic", "Working"]
    importance: float
    access_count: U32
    last_accessed: SystemTime
    created_at: SystemTime
    metadata: Texts
    embedding: list[float] | None = None


class EpisodeEvent(Struct, gc=False):
    """One step of an episode."""

    action: str
    result: str
    timestamp: SystemTime
    context: Texts


class Episode(Struct, gc=False):
    """Something that the agent has lived through."""

    id: UUID
    title: str
    description: str
    events: list[EpisodeEvent]
    lessons_learned: list[str]
    timestamp: SystemTime
    importance: float
    outcome: str | None = None


class CustomRelation(Struct, gc=False, forbid_unknown_fields=True):
    """A relation with a name of its own."""

    custom: str = field(name="Custom")


class ConceptRelationship(Struct, gc=False):
    """How one concept relates to another."""

    relation_type: (
        Literal["IsA", "PartOf", "RelatedTo", "Causes", "Enables", "Requires", "Similar", "Opposite"] | CustomRelation
    )
    target_concept: str
    strength: float
    bidirectional: bool


class SemanticMemoryItem(Struct, gc=False):
    """A concept."""

    id: UUID
    concept: str
    relationships: list[ConceptRelationship]
    properties: Values
    confidence: float
    created_at: SystemTime
    updated_at: SystemTime


class HierarchicalMemory(Struct, gc=False):
    """All memories, by kind."""

    working_memory: WorkingMemory
    short_term: list[MemoryItem]
    long_term: list[MemoryItem]
    episodic_memory: list[Episode]
    semantic_memory: list[SemanticMemoryItem]


class NamedSource(Struct, gc=False, forbid_unknown_fields=True):
    """Where knowledge comes from, one of the two."""

    agent: UUID | UnsetType = field(default=UNSET, name="SharedFromAgent")
    document: str | UnsetType = field(default=UNSET, name="ExternalDocument")

    def __post_init__(self) -> None:
        if (self.agent is UNSET) == (self.document is UNSET):
            raise ValueError("Expected one of `SharedFromAgent` and `ExternalDocument`")


class KnowledgeFact(Struct, gc=False):
    """A statement that the agent holds true."""

    id: UUID
    subject: str
    predicate: str
    object: str
    confidence: float
    source: Literal["Experience", "Learning", "UserProvided"] | NamedSource
    created_at: SystemTime
    verified: bool


class ProcedureStep(Struct, gc=False):
    """One step of a procedure."""

    order: U32
    action: str
    expected_result: str
    error_handling: str | None = None


class Procedure(Struct, gc=False):
    """How something is done."""

    id: UUID
    name: str
    description: str
    steps: list[ProcedureStep]
    preconditions: list[str]
    postconditions: list[str]
    success_rate: float


class Pattern(Struct, gc=False):
    """Something that was seen to follow from something else."""

    id: UUID
    name: str
    description: str
    conditions: list[str]
    outcomes: list[str]
    confidence: float
    occurrences: U32


class SharedKnowledgeRef(Struct, gc=False):
    """Knowledge of another agent."""

    knowledge_id: UUID
    source_agent: UUID
    shared_at: SystemTime
    access_level: Literal["Public", "Restricted", "Confidential", "Secret"]
    trust_score: float


class KnowledgeBase(Struct, gc=False):
    """All knowledge, by kind."""

    facts: list[KnowledgeFact]
    procedures: list[Procedure]
    learned_patterns: list[Pattern]
    shared_knowledge: list[SharedKnowledgeRef]
    domain_expertise: dict[str, Literal["Novice", "Intermediate", "Advanced", "Expert"]]


class ConversationItem(Struct, gc=False):
    """One turn of the conversation."""

    id: UUID
    role: Literal["User", "Agent", "System", "Tool"]
    content: str
    timestamp: SystemTime
    context_used: list[UUID]
    knowledge_used: list[UUID]


class RetentionPolicy(Struct, gc=False):
    """How long the runtime keeps what is in the context."""

    session_retention: Duration
    memory_retention: Duration
    knowledge_retention: Duration
    auto_archive: bool
    encryption_required: bool


class AgentContext(Struct, gc=False):
    """One agent's state."""

    agent_id: UUID
    session_id: UUID
    memory: HierarchicalMemory
    knowledge_base: KnowledgeBase
    conversation_history: list[ConversationItem]
    metadata: Texts
    created_at: SystemTime
    updated_at: SystemTime
    retention_policy: RetentionPolicy

    @property
    def changed_at(self) -> float:
        """When it was last changed, in seconds since the epoch."""
        return self.updated_at.seconds


class ArchivedContext(Struct, gc=False):
    """What the runtime has taken out of a context by its retention policy."""

    agent_id: UUID
    archived_at: SystemTime
    archive_reason: str
    memory: HierarchicalMemory
    conversation_history: list[ConversationItem]
    knowledge_base: KnowledgeBase
    metadata: Texts

    @property
    def changed_at(self) -> float:
        """When it was last changed, in seconds since the epoch."""
        return self.archived_at.seconds


class AnyMemory(Struct, gc=False):
    """Memories of any version: the kinds, each a list."""

    working_memory: Values
    short_term: list[Raw]
    long_term: list[Raw]
    episodic_memory: list[Raw]
    semantic_memory: list[Raw]


class AnyKnowledge(Struct, gc=False):
    """Knowledge of any version: the kinds, whatever is in them."""

    facts: Raw
    procedures: Raw
    learned_patterns: Raw
    shared_knowledge: Raw
    domain_expertise: Raw


class AnySpan(Struct, gc=False):
    """A time span, as any version may write it."""

    secs: int
    nanos: int


class AnyPolicy(Struct, gc=False):
    """A retention policy of any version."""

    session_retention: AnySpan
    memory_retention: AnySpan
    knowledge_retention: AnySpan
    auto_archive: Raw
    encryption_required: Raw


class AnyContext(Struct, gc=False):
    """A context of any version."""

    agent_id: str
    session_id: str
    memory: AnyMemory
    knowledge_base: AnyKnowledge
    conversation_history: list[Raw]
    metadata: Raw
    created_at: AnyTime
    updated_at: AnyTime
    retention_policy: AnyPolicy

    @property
    def changed_at(self) -> float:
        """When it was last changed, in seconds since the epoch."""
        return self.updated_at.seconds


class AnyArchive(Struct, gc=False):
    """An archive of any version."""

    agent_id: str
    archived_at: AnyTime
    archive_reason: Raw
    memory: AnyMemory
    conversation_history: list[Raw]
    knowledge_base: AnyKnowledge
    metadata: Raw

    @property
    def changed_at(self) -> float:
        """When it was last changed, in seconds since the epoch."""
        return self.archived_at.seconds


def fields_of(document: type[Struct]) -> tuple[str, ...]:
    """The names of a document's outer fields."""
    return document.__struct_fields__


@lru_cache
def decoder(document: Any) -> "json.Decoder[Any]":
    """Reads a text as a document, as strictly as the runtime reads JSON; see `msgspec.json.Decoder`."""
    return json.Decoder(document)


def problem_of(text: bytes, document: type[Struct]) -> str:
    """What keeps a JSON text from being a document of that type; empty when nothing does.

    Raises msgspec.DecodeError when it is no JSON at all.
    """
    try:
        decoder(document).decode(text)
    except ValidationError as error:
        return str(error)
    return ""
