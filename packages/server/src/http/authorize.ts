/**
 * Who a request is and what it may do: JSON Web Tokens, and the checks that every kind of auth goes through.
 */
import { createLocalJWKSet, createRemoteJWKSet, errors, jwtVerify } from 'jose'
import type { JSONWebKeySet, JWTPayload, JWTVerifyGetKey } from 'jose'
import type { Access, Clock } from '@rejoin/shared'
import { SyncError, systemClock, toSyncError } from '@rejoin/shared'
import { WIRE_LIMITS } from '@rejoin/shared/wire'
import type { AuthRequest, Authorize, Grant } from '../relay/grant.ts'
import { OPEN_GRANT } from '../relay/grant.ts'

/** Options of `jwt`: `secret` for tokens that the application signs itself, or `jwks` for an identity provider's. */
export interface JwtOptions {
  /** Shared secret, 32 bytes or more. A line break at the end of a string is not part of it, so that it may come out of a file. */
  readonly secret?: string | Uint8Array | undefined
  /** Address of a JSON Web Key Set, or the set itself. */
  readonly jwks?: string | URL | JSONWebKeySet | undefined
  /** The only `iss` that is accepted. @default any */
  readonly issuer?: string | undefined
  /** The only `aud` that is accepted. @default any */
  readonly audience?: string | undefined
  /** The only signatures that are accepted, whatever a token says of itself. @default ['HS256'] with secret, ['RS256', 'PS256', 'ES256', 'EdDSA'] with jwks */
  readonly algorithms?: readonly string[] | undefined
  /** @default the platform's */
  readonly clock?: Clock | undefined
}

/**
 * Grants by JSON Web Token: `sub` is the principal, `docs` the documents (`{ "clinic-*": "write" }`, `*` only at the end, the longest match decides), `admin: true` the administrative calls, `exp` the end.
 * Throws `SyncError('bad_option')` when the options cannot be meant.
 */
export function jwt(options: JwtOptions): Authorize {
  const { issuer, audience, clock = systemClock } = options
  const { key, algorithms } = readKey(options)
  const checks = {
    algorithms: [...algorithms],
    ...(issuer === undefined ? {} : { issuer }),
    ...(audience === undefined ? {} : { audience }),
  }
  return async ({ token }) => {
    if (token === '') return null
    try {
      const { payload } = await jwtVerify(token, key, { ...checks, currentDate: new Date(clock.now()) })
      return grantOf(payload)
    } catch (thrown) {
      throw tokenError(thrown)
    }
  }
}

/** The bytes of a secret that may have come out of a file. */
export function secretBytes(secret: string | Uint8Array): Uint8Array {
  return typeof secret === 'string' ? new TextEncoder().encode(secret.replace(/[\r\n]+$/u, '')) : secret
}

/** A grant that is not decided within this is refused, in ms: nobody waits for ever at a door. */
const DECIDE_MS = 5000

/**
 * `auth` as the relay asks it: without one, everything is granted; with one, resolves to a grant that is well formed and not over, and rejects with
 * `unauthorized`, `expired`, `overloaded` when it takes more than 5 s, or what the auth itself threw.
 */
export function checkedAuthorize(auth: Authorize | undefined, clock: Clock): (...request: Parameters<Authorize>) => Promise<Grant> {
  if (auth === undefined) return () => Promise.resolve(OPEN_GRANT)
  return async (request) => {
    const grant = await inTime(askFor(auth, request), clock)
    if (grant === null) throw new SyncError('unauthorized', request.token === '' ? 'no token was given' : 'the token was refused')
    const problem = grantProblem(grant)
    if (problem !== undefined) throw new SyncError('internal', `auth gave a grant that is none: ${problem}`)
    if (grant.expiresAt !== undefined && grant.expiresAt <= clock.now()) throw new SyncError('expired', 'the grant is over')
    return grant
  }
}

function inTime<T>(decision: Promise<T>, clock: Clock): Promise<T> {
  return new Promise((resolve, reject) => {
    const cancel = clock.after(DECIDE_MS, () => reject(new SyncError('overloaded', 'the grant was not decided in time')))
    decision.finally(cancel).then(resolve, reject)
  })
}

/** A grant of the application's own auth. What it throws is logged, and people write the token into it when they look for a fault: it is taken out. */
async function askFor(auth: Authorize, request: AuthRequest): Promise<Grant | null> {
  try {
    return await auth(request)
  } catch (thrown) {
    const { token } = request
    const error = toSyncError(thrown)
    if (token === '' || !error.reason.includes(token)) throw thrown
    throw new SyncError(error.code, error.reason.replaceAll(token, '(the token)'))
  }
}

/** Why `value` is not a grant, or undefined when it is one. */
export function grantProblem(value: unknown): string | undefined {
  if (!isObject(value)) return `it is ${value === null ? 'null' : typeof value}, not an object`
  const { principal, documents, admin, expiresAt } = value
  if (typeof principal !== 'string' || principal === '') return 'principal is not a string, or empty'
  const bytes = new TextEncoder().encode(principal).length
  if (bytes > WIRE_LIMITS.principal) return `principal is ${bytes} bytes, at most ${WIRE_LIMITS.principal}`
  if (!isObject(documents)) return 'documents is not an object'
  for (const [pattern, access] of Object.entries(documents)) {
    const star = pattern.indexOf('*')
    if (star >= 0 && star !== pattern.length - 1) return `documents: in ${JSON.stringify(pattern)} the * is not at the end`
    if (!isAccess(access)) return `documents: ${JSON.stringify(pattern)} is neither "read", "write" nor "none"`
  }
  if (admin !== undefined && typeof admin !== 'boolean') return 'admin is neither true nor false'
  if (expiresAt !== undefined && !Number.isFinite(expiresAt)) return 'expiresAt is not a number of ms since 1970'
  return undefined
}

const SYMMETRIC: ReadonlySet<string> = new Set(['HS256', 'HS384', 'HS512'])
const ASYMMETRIC: ReadonlySet<string> = new Set([
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
])

/** As long as the digest of HS256. */
const SECRET_BYTES = 32

function readKey(options: JwtOptions): { readonly key: JWTVerifyGetKey; readonly algorithms: readonly string[] } {
  const { secret, jwks } = options
  if ((secret === undefined) === (jwks === undefined)) throw new SyncError('bad_option', 'jwt: give either secret or jwks')
  // A public key must never be taken for a shared secret, so the two kinds of algorithms do not mix.
  const possible = secret === undefined ? ASYMMETRIC : SYMMETRIC
  const algorithms = options.algorithms ?? (secret === undefined ? ['RS256', 'PS256', 'ES256', 'EdDSA'] : ['HS256'])
  const wrong = algorithms.length === 0 ? '(none)' : algorithms.find((name) => !possible.has(name))
  if (wrong !== undefined)
    throw new SyncError(
      'bad_option',
      `jwt: algorithms: ${wrong} is not one of ${[...possible].join(', ')}, which go with ${secret === undefined ? 'jwks' : 'secret'}`,
    )
  if (secret !== undefined) {
    const bytes = secretBytes(secret)
    if (bytes.length === 0) throw new SyncError('bad_option', 'jwt: the secret is empty')
    if (bytes.length < SECRET_BYTES)
      process.emitWarning(`jwt: the secret is ${bytes.length} bytes; one below ${SECRET_BYTES} can be found by trying`, 'RejoinWarning')
    return { key: () => bytes, algorithms }
  }
  if (typeof jwks === 'string' || jwks instanceof URL) {
    if (!URL.canParse(String(jwks)) || !/^https?:$/u.test(new URL(jwks).protocol))
      throw new SyncError('bad_option', `jwt: jwks: ${String(jwks)} is not an http(s) address`)
    return { key: createRemoteJWKSet(new URL(jwks)), algorithms }
  }
  try {
    return { key: createLocalJWKSet(jwks ?? { keys: [] }), algorithms }
  } catch (cause) {
    throw new SyncError('bad_option', 'jwt: jwks is not a JSON Web Key Set: { keys: […] }', { cause })
  }
}

function grantOf(payload: JWTPayload): Grant {
  const { sub, docs = {}, admin, exp } = payload
  const grant = {
    principal: sub,
    documents: docs,
    ...(admin === undefined ? {} : { admin }),
    ...(exp === undefined ? {} : { expiresAt: exp * 1000 }),
  }
  const problem = grantProblem(grant)
  if (problem !== undefined)
    throw new SyncError('unauthorized', `the token's claims: ${problem.replace('principal', 'sub').replace('documents', 'docs')}`)
  return grant as Grant
}

/** What went wrong with a token, without any of the token in it. */
function tokenError(thrown: unknown): SyncError {
  if (thrown instanceof SyncError) return thrown
  if (thrown instanceof errors.JWTExpired) return new SyncError('expired', 'the token is over')
  if (thrown instanceof errors.JWTClaimValidationFailed)
    return new SyncError('unauthorized', `the token's claim ${thrown.claim} is not what this relay accepts`)
  if (thrown instanceof errors.JOSEAlgNotAllowed)
    return new SyncError('unauthorized', 'the token is signed with an algorithm that this relay does not accept')
  if (thrown instanceof errors.JWKSTimeout) return new SyncError('overloaded', 'the keys could not be fetched in time')
  if (thrown instanceof errors.JOSEError) return new SyncError('unauthorized', 'the token does not verify')
  // Neither ours nor the verifier's: the key server did not answer.
  return new SyncError('overloaded', 'the keys could not be fetched', { cause: thrown })
}

function isAccess(value: unknown): value is Access {
  return value === 'none' || value === 'read' || value === 'write'
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
