/**
 * Every limit of the wire and of admission, named, in one place (PROTOCOL.md §8; a test compares the two).
 */

/** Limits that a relay may be configured with. Sizes in bytes unless the name says otherwise. */
export interface Limits {
  /** One WebSocket message on `/sync`. */
  readonly message: number
  /** One WebSocket message on `/y/<document>`. */
  readonly yMessage: number
  /** The one message before `welcome`. */
  readonly helloMessage: number
  /** How long a socket may be open before its hello, in ms. */
  readonly helloMs: number
  /** An edit, all its parts together. */
  readonly edit: number
  /** Yjs structs per 256 KiB of an update, as a count. Small honest writes take some 15 bytes a struct; this is 8. */
  readonly structs: number
  /** Yjs client ids that one update writes under, as a count. */
  readonly clients: number
  /** Yjs client ids of a document, as a count: each session of a tab or process that writes takes one. */
  readonly documentClients: number
  /** Depth of a JSON-like value, as a count. */
  readonly depth: number
  /** A map key or attribute name. */
  readonly key: number
  /** A document: its snapshot and the entries behind it. */
  readonly document: number
  /** Presence of one Yjs client. */
  readonly presence: number
  /** Presence messages of one socket per second, as a count. */
  readonly presencePerSecond: number
  /** Documents open on one socket, as a count. */
  readonly documents: number
  /** Sockets on one relay, as a count. */
  readonly connections: number
  /** Pushes of one socket that may be unanswered; beyond twice that the relay stops reading the socket. */
  readonly window: number
  /** Unsent bytes to one socket; beyond that it is served from the log later. */
  readonly outbound: number
  /** One fragment of a first sync. */
  readonly fragment: number
}

const KIB = 1024
const MIB = 1024 * KIB

/** The defaults. */
export const DEFAULT_LIMITS: Limits = {
  message: MIB,
  yMessage: 16 * MIB,
  helloMessage: 64 * KIB,
  helloMs: 5000,
  edit: 16 * MIB,
  structs: 32_768,
  clients: 10_000,
  documentClients: 100_000,
  depth: 32,
  key: 256,
  document: 64 * MIB,
  presence: 2 * KIB,
  presencePerSecond: 50,
  documents: 1000,
  connections: 10_000,
  window: 256 * KIB,
  outbound: 4 * MIB,
  fragment: 256 * KIB,
}

/** Limits that are part of the wire itself: both ends hold to them whatever they were configured with. Strings in bytes of UTF-8. */
export const WIRE_LIMITS = {
  agent: 256,
  text: 1024,
  principal: 256,
  token: 16_384,
  documentId: 256,
  covers: 1000,
  sink: 63,
  awaits: 1000,
  entries: 10_000,
  presence: 65_536,
  frames: 65_536,
} as const
