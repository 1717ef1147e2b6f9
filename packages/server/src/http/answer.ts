/**
 * What every request over plain HTTP has in common: who asks, and how it is refused.
 */
import type { Context } from 'hono'
import type { ErrorCode, SyncError } from '@rejoin/shared'
import { ERRORS, toSyncError } from '@rejoin/shared'
import type { AuthRequest } from '../relay/grant.ts'

/** The request as `auth` sees it. */
export function authRequest(c: Context): AuthRequest {
  const url = new URL(c.req.url)
  const token = /^Bearer +([^ ]+) *$/iu.exec(c.req.header('authorization') ?? '')?.[1] ?? ''
  return { token, url: url.pathname + url.search, headers: c.req.header() }
}

/** The answer to a request that is refused: `{ error: { code, message, hint } }`. */
export function refusal(error: SyncError): Response {
  const status = ERRORS[error.code].http
  const headers: Record<string, string> = { 'Content-Type': 'application/json', 'Cache-Control': 'no-store' }
  if (status === 401) headers['WWW-Authenticate'] = 'Bearer'
  if (status === 503) headers['Retry-After'] = '1'
  return new Response(JSON.stringify(refusalBody(error)), { status, headers })
}

/** What it says. */
export function refusalBody(thrown: unknown): {
  readonly error: { readonly code: ErrorCode; readonly message: string; readonly hint: string }
} {
  const { code, reason, hint } = toSyncError(thrown)
  return { error: { code, message: reason, hint } }
}
