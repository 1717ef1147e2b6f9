/**
 * Which web pages may talk to the relay (in front of every request and upgrade). Pure. A relay without auth on the loopback is otherwise open to every page
 * that its user visits, and to DNS rebinding: a stranger's name that resolves to 127.0.0.1.
 */

/** How requests are held to Host and Origin. */
export type OriginPolicy =
  /** Without auth: Host must be loopback, and Origin absent or loopback. */
  | { readonly type: 'loopback' }
  /** With auth: Origin absent (not a web page) or listed; '*' lists every one. */
  | { readonly type: 'listed'; readonly origins: readonly string[] }
  /** Insecure, and said so: anybody. */
  | { readonly type: 'any' }

/** The two headers that are looked at. */
export interface OriginHeaders {
  readonly host: string | undefined
  readonly origin: string | undefined
}

/** The policy that the options ask for. */
export function originPolicy(options: {
  readonly auth: unknown
  readonly origins: readonly string[]
  readonly insecure: boolean
}): OriginPolicy {
  if (options.auth !== undefined) return { type: 'listed', origins: options.origins }
  return options.insecure ? { type: 'any' } : { type: 'loopback' }
}

/** Why the request is refused (`forbidden`), in words, or undefined when it is let through. */
export function originProblem({ host, origin }: OriginHeaders, policy: OriginPolicy): string | undefined {
  if (policy.type === 'any') return undefined
  if (policy.type === 'loopback') {
    if (host === undefined || !isLoopbackHost(host)) return `Host ${shown(host)} is not a loopback address, and this relay has no auth`
    if (origin !== undefined && !isLoopbackOrigin(origin))
      return `Origin ${shown(origin)} is not a loopback address, and this relay has no auth`
    return undefined
  }
  if (origin === undefined || policy.origins.includes('*')) return undefined
  if (policy.origins.some((listed) => canonicalOrigin(listed) === canonicalOrigin(origin))) return undefined
  return `Origin ${shown(origin)} is not among the origins of this relay`
}

/** Whether an address to listen on is reached from this machine only. */
export function isLoopbackAddress(address: string): boolean {
  return isLoopbackHost(address.includes(':') && !address.startsWith('[') ? `[${address}]` : address)
}

/** Whether a Host header, with or without port, names this machine. Names are not resolved: what a name resolves to is the attacker's choice. */
function isLoopbackHost(host: string): boolean {
  // Anything else would let a URL parser see another host than the one that was sent.
  if (!/^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::\d{1,5})?$/u.test(host)) return false
  const name = hostOf(`http://${host}`)
  return name === 'localhost' || name === '[::1]' || (name !== undefined && /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/u.test(name))
}

function isLoopbackOrigin(origin: string): boolean {
  const scheme = /^https?:\/\//u.exec(origin)?.[0]
  return scheme !== undefined && isLoopbackHost(origin.slice(scheme.length))
}

function hostOf(url: string): string | undefined {
  return URL.canParse(url) ? new URL(url).hostname : undefined
}

/** Scheme, host and port in one spelling; what is no origin of http(s), such as `null`, stays as it is and so matches only itself. */
export function canonicalOrigin(origin: string): string {
  return /^https?:\/\/[^/]+\/?$/iu.test(origin) && URL.canParse(origin) ? new URL(origin).origin : origin
}

function shown(value: string | undefined): string {
  return value === undefined ? '(absent)' : JSON.stringify(value.slice(0, 100))
}
