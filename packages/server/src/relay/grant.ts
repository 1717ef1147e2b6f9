/**
 * What a principal may do, and the hook that says so: asked once a socket or request, and again for each fresh token.
 */
import type { Access, DocumentId } from '@rejoin/shared'

/** Who speaks, and what they may do until when. */
export interface Grant {
  /** Who it is, at most 256 bytes; stamped on presence and remembered with every entry. */
  readonly principal: string
  /** Document id, or a prefix followed by `*`, → what is allowed. Of several that match, the longest decides. */
  readonly documents: Readonly<Record<string, Access>>
  /** Whether administrative calls are allowed. @default false */
  readonly admin?: boolean | undefined
  /** When the grant ends, ms since 1970. @default never */
  readonly expiresAt?: number | undefined
}

/** What is known when somebody asks for a grant. */
export interface AuthRequest {
  /** The token they sent, or ''. */
  readonly token: string
  /** The address they asked for, with its query, without the host. */
  readonly url: string
  /** Lower-case header name → value. */
  readonly headers: Readonly<Record<string, string | undefined>>
}

/** Resolves to what the request may do; null, or a rejection with `SyncError('unauthorized' | 'expired')`, when nothing. */
export type Authorize = (request: AuthRequest) => Promise<Grant | null>

/** What `grant` allows with `document`. Its time is not looked at here. */
export function accessOf(grant: Grant, document: DocumentId): Access {
  let best = -1
  let access: Access = 'none'
  for (const [pattern, allowed] of Object.entries(grant.documents)) {
    const fits = pattern.endsWith('*') ? document.startsWith(pattern.slice(0, -1)) : document === pattern
    // An exact id is longer than any prefix of it with its star taken off, so it decides.
    const length = pattern.endsWith('*') ? pattern.length - 1 : pattern.length + 1
    if (fits && length > best) {
      best = length
      access = allowed
    }
  }
  return access
}

/** Everything, for ever: a relay without auth on the loopback. */
export const OPEN_GRANT: Grant = { principal: 'anonymous', documents: { '*': 'write' }, admin: true }
