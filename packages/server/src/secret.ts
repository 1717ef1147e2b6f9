/**
 * The secret of a data folder (beside the path): whoever can read it runs the relay on this machine, and is an administrator without any token.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto'
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { SyncError } from '@rejoin/shared'
import type { AuthRequest, Grant } from './relay/grant.ts'

/** Its file in the data folder, which only the user of the relay can read. */
export const SECRET_FILE = 'admin-secret'
const BYTES = 32

/** Makes a new one at each start of the relay: one that got out is worth nothing after a restart. */
export function makeSecret(folder: string): string {
  const path = join(folder, SECRET_FILE)
  const secret = randomBytes(BYTES).toString('hex')
  const fresh = `${path}.new`
  // A file that lies there already would keep its mode.
  writeFileSync(fresh, `${secret}\n`, { mode: 0o600, flush: true })
  renameSync(fresh, path)
  return secret
}

/** The secret of the relay that serves this folder. Throws `SyncError('bad_option')` that says what to do. */
export function readSecret(folder: string): string {
  try {
    return readFileSync(join(folder, SECRET_FILE), 'utf8').trim()
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new SyncError(
      'bad_option',
      `the secret of the relay cannot be read: ${reason}; name its data folder with --data, or give --token-file`,
      {
        cause,
      },
    )
  }
}

const OPERATOR: Grant = { principal: 'operator', documents: { '*': 'write' }, admin: true }

/** `authorize`, for requests that may also come with the secret. */
export function withSecret(secret: string, authorize: (request: AuthRequest) => Promise<Grant>): (request: AuthRequest) => Promise<Grant> {
  const expected = Buffer.from(secret)
  return (request) => {
    const given = Buffer.from(request.token)
    return given.length === expected.length && timingSafeEqual(given, expected) ? Promise.resolve(OPERATOR) : authorize(request)
  }
}
