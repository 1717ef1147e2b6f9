/**
 * From the relay's address as people write it to the address of its socket (step 3 of the path).
 */
import { SyncError } from '@rejoin/shared'

/** The relay's socket address. Throws `bad_option`. */
export function syncUrl(url: string): string {
  const parsed = parseUrl(url)
  if (parsed === undefined || !/^(https?|wss?):$/u.test(parsed.protocol))
    throw new SyncError('bad_option', `url: "${url}" is not http(s) or ws(s)`)
  parsed.protocol = parsed.protocol.replace('http', 'ws')
  if (!parsed.pathname.endsWith('/sync')) parsed.pathname = `${parsed.pathname.replace(/\/$/u, '')}/sync`
  parsed.hash = ''
  return parsed.href
}

function parseUrl(url: string): URL | undefined {
  try {
    return new URL(url)
  } catch {
    return undefined
  }
}
