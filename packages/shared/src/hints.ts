/**
 * What to do about each error, for operators, logs and developers. Node and development builds read this file; production bundles for browsers read no-hints.ts in its place (package.json, `imports`).
 */
import type { Hints } from './errors.ts'

export const HINTS: Hints = {
  ok: 'nothing to do',
  bad_frame: 'check that both ends speak this protocol, and what stands between them',
  unsupported_revision: 'upgrade the older of client and relay',
  frame_too_large: 'send smaller messages; large updates go in parts',
  timeout: 'check the network; the client tries again by itself',
  unauthorized: 'give the client a token that this relay accepts',
  expired: 'let the token callback return a fresh token',
  forbidden: 'ask for a grant on this document',
  bad_document: 'use 1 to 256 bytes of UTF-8 without control characters',
  gap: 'send the edits before these first; the client does so by itself',
  too_large: 'split the edit, or raise the limit on the relay',
  bad_bytes: 'export the edit from the quarantine; its bytes are not a complete Yjs update',
  bad_key: 'rename the key; `__proto__` and keys above 256 bytes are refused',
  limit: 'make it smaller or simpler; the message says what is above which limit',
  foreign_client: 'do not share a Yjs client id between users or devices',
  too_many: 'open fewer documents or connections, or raise the limit on the relay',
  overloaded: 'wait; the client tries again by itself',
  storage_full: 'free space on the disk of the relay; it recovers without a restart',
  storage_failed: 'look at the log of the relay and its disk, then start it again',
  draining: 'wait; the relay is being restarted',
  internal: 'look at the log of the relay',
  replaced: 'the document was deleted or reset; export what this replica still holds',
  not_found: 'check the address, name or id that was asked for',
  not_loaded: 'await replica.whenLoaded() before the first edit',
  store_in_use: 'give each process a store of its own',
  store_failed: 'check the quota and permissions of the store',
  closed: 'open it again',
  aborted: 'the AbortSignal given to this call fired',
  bad_option: 'correct the option',
  sink_parked: 'look at its dead letters: rejoin sinks dead <name>',
  sink_paused: 'rejoin sinks resume <name>',
  cut_off: 'begin again: what lies between was trimmed, or the view was made anew',
}
