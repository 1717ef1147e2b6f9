/**
 * Signs the tokens that `jwt({ secret })` verifies: for development, for scripts, and as the recipe for an application's own backend.
 */
import { SignJWT } from 'jose'
import { SyncError } from '@rejoin/shared'
import { readDuration } from './config.ts'
import { grantProblem, secretBytes } from './http/authorize.ts'

/** The flags of `rejoin token`, as text. */
export interface TokenFlags {
  readonly sub: string
  /** `pattern=access` each. */
  readonly doc: readonly string[]
  readonly ttl: string
  readonly admin?: boolean | undefined
  readonly issuer?: string | undefined
  readonly audience?: string | undefined
}

/** A JSON Web Token, HS256. `now` in ms since 1970. Throws `SyncError('bad_option')` that names the flag. */
export async function signToken(secret: string | Uint8Array, flags: TokenFlags, now: number): Promise<string> {
  const key = secretBytes(secret)
  if (key.length === 0) throw new SyncError('bad_option', '--secret-file: the file is empty')
  const docs = Object.fromEntries(flags.doc.map(readPair))
  const problem = grantProblem({ principal: flags.sub, documents: docs })
  if (problem !== undefined) throw new SyncError('bad_option', problem.replace('principal', '--sub').replace('documents', '--doc'))
  const issuedAt = Math.floor(now / 1000)
  const token = new SignJWT({ docs, ...(flags.admin === true ? { admin: true } : {}) })
    .setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
    .setSubject(flags.sub)
    .setIssuedAt(issuedAt)
    .setExpirationTime(issuedAt + Math.ceil(readDuration(flags.ttl, '--ttl') / 1000))
  if (flags.issuer !== undefined) token.setIssuer(flags.issuer)
  if (flags.audience !== undefined) token.setAudience(flags.audience)
  return token.sign(key)
}

/** The last = parts them: a document id may hold one. */
function readPair(pair: string): [pattern: string, access: string] {
  const at = pair.lastIndexOf('=')
  if (at <= 0) throw new SyncError('bad_option', `--doc is pattern=access, such as clinic-*=write; this is ${JSON.stringify(pair)}`)
  return [pair.slice(0, at), pair.slice(at + 1)]
}
